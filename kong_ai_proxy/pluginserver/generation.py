"""One generation: what one `kong-ai-proxy serve` is made of, and its place at the socket's path.

Kong starts the next plugin server while the one before still works (a reload), on one and the same
path. So a generation listens under a temporary name, takes the path by rename(2), which leaves no
moment without a server, and at its end removes the path only where it is still its own. As Kong may
end the one before the other is there, the ending one keeps the path for some time.

Whatever else a generation owns and hands down to its workers belongs here too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from kong_ai_proxy.relay.once import Once
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.relay.shared import SharedTargets

Protocol = Literal["protobuf", "msgpack"]

MAX_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux: sun_path holds 108 bytes, the last one a zero."""

_TEMPORARY_BYTES = 7  # "." and six hexadecimal digits
_BACKLOG = 4096  # what waits while all workers are busy or start again
_LOCK_SECONDS = 1.0
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""glibc, unless told, raises this threshold to the size of the largest block that was ever freed,
and smaller ones then stay in its heap: pieces of uploads would not go back to the system
(https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html)."""


class Settings(NamedTuple):
    """What the launcher, the supervisor and the workers of a generation agree on."""

    socket: str
    """The listening socket's absolute path."""
    workers: int = 2
    protocol: Protocol = "protobuf"
    drain: float = 600.0
    """Seconds that requests under way have once the generation has to end."""
    event_time_limit: float = 50.0
    """Seconds that Kong waits at most for one event."""
    log_level: str = "info"
    handover: float = 0.0
    """Seconds that an ending generation goes on accepting if no other one takes the path."""
    plugins: str | None = None
    """Folder of the plugin classes; None: the packaged ones."""
    relay: RelaySettings = RelaySettings()
    redis: str | None = None
    """URL of the server through which nodes share the state of their targets. May have a user and
    a password in it."""

    def to_json(self) -> bytes:
        """For the stdin of a process of the generation. As URLs may have a password in them, not
        for a command line or an environment."""
        return json.dumps({**self._asdict(), "relay": dataclasses.asdict(self.relay)}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Settings:
        """The reverse of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "relay": RelaySettings(**fields["relay"])})


def start_process(
    module: str, settings: Settings, *arguments: int, **popen: Any
) -> subprocess.Popen[bytes]:
    """Start a process of the generation, which reads its settings from stdin. `arguments` follow
    the socket's path on its command line, where the path tells generations apart in process lists.

    Raises OSError.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, settings.socket, *map(str, arguments)],
        stdin=subprocess.PIPE,
        env={**ALLOCATION, **os.environ},
        **popen,
    )
    assert process.stdin
    with contextlib.suppress(BrokenPipeError), process.stdin:  # it is gone: others see that
        process.stdin.write(settings.to_json())
    process.stdin = None
    return process


class RelayShare:
    """What the relays of one generation share: the port that they listen on, the memory in which a
    ticket is honoured once, and the state of the targets. Workers inherit them.

    The port is one of 127.0.0.1 that was free, so that two generations can overlap. Raises OSError
    where it cannot listen.
    """

    def __init__(self, workers: int) -> None:
        self.once = Once.create(workers)
        self.targets = SharedTargets.create(workers)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.socket.setblocking(False)

    def close(self) -> None:
        """Stop listening, and forget the secret and the state."""
        self.socket.close()
        self.once.close()
        self.targets.close()


def socket_problem(path: str) -> str | None:
    """Why no socket can listen at `path` (absolute), or None."""
    folder, name = os.path.split(path)
    longest = len(os.fsencode(path)) - len(os.fsencode(name))
    longest += max(len(os.fsencode(name)), _TEMPORARY_BYTES)
    if longest > MAX_PATH_BYTES:
        return (
            f"the path is too long for a Unix socket ({longest} bytes, at most {MAX_PATH_BYTES}): "
            "choose a shorter one"
        )
    if not os.path.isdir(folder):
        return f"there is no directory {folder}: create it, or choose another path"
    if not os.access(
        folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        return (
            f"user {os.geteuid()} may not create files in {folder}: Kong starts the plugin server "
            "as the user of its workers (nginx_user), which needs to write there"
        )
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        return "something that is not a socket is there: remove it, or choose another path"
    return None


class Listener:
    """The listening socket of one generation. Workers inherit it, so that the death of one resets
    no connection that waits in its queue.

    Its mode is 0600. A connection may start instances and run events, and Kong's workers run as
    the very user that this process has: worker 0 starts it, after nginx has changed to
    `nginx_user`. Whoever runs it apart from Kong has to run it as that user.

    Raises OSError where it cannot listen.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(path)
        self.published = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._temporary = self._bind()
        self._identity = _identity(self._temporary)
        self.socket.listen(_BACKLOG)
        self.socket.setblocking(False)

    def _bind(self) -> str:
        before = os.umask(0o177)
        try:
            temporary = os.path.join(self._folder, "." + os.urandom(3).hex())
            self.socket.bind(temporary)
        finally:
            os.umask(before)
        return temporary

    def publish(self) -> None:
        """Take the path, from a generation before too."""
        with _locked(self._folder):
            os.rename(self._temporary, self._path)
        self.published = True

    def in_place(self) -> bool:
        """Whether who connects to the path comes here."""
        return self.published and _identity(self._path) == self._identity

    def withdraw(self) -> None:
        """Give up the path, unless it is another generation's by now. Never raises."""
        name = self._path if self.published else self._temporary
        with contextlib.suppress(OSError), _locked(self._folder):
            if _identity(name) == self._identity:
                os.unlink(name)

    def close(self) -> None:
        """Withdraw and stop listening."""
        self.withdraw()
        self.socket.close()


def answers(path: str) -> bool:
    """Whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # listening, with a full queue
            return True
        except OSError:
            return False
        return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep other generations from taking the path between a look at it and its removal.

    The lock is on the directory itself, so no lock file stays behind. Whoever may read the
    directory can hold it, hence the limit: after that we go on, with the small race.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        limit = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < limit:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
