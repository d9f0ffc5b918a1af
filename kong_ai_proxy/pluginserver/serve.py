"""`kong-ai-proxy serve`: the thin launcher that Kong's start_cmd runs.

Kong kills what it started some seconds into a reload, and with it every stream that old workers
still carry. So the launcher starts the supervisor in a session of its own and only stays: Kong sees
by it whether the plugin server runs, and the supervisor sees by it whether Kong does. It alone
holds Kong's pipes (its end would otherwise go unnoticed: Kong reads a server's output to its end
before it starts another) and copies to them what the processes log.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import select
import signal
import socket
import ssl
import stat
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from kong_ai_proxy.pluginserver.generation import Settings, socket_problem, start_process
from kong_ai_proxy.pluginserver.sharing import redis_url
from kong_ai_proxy.relay.settings import RelaySettings, proxy_url

_STDIN, _STDERR = 0, 2
_KILL_SECONDS = 3  # what the supervisor gets to end at once
_CHUNK = 4096  # PIPE_BUF: a pipe that is writable takes this much without blocking
_KONG_SECONDS = 60
_HANDOVER_SECONDS = 4.0  # about what the next server needs until it serves, on a busy machine
_DEFAULTS = Settings(socket="")


def main(argv: list[str], *, plugins: str | None = None) -> int:
    """Run a plugin server until it ends. `plugins` is a folder of plugin classes to serve in place
    of the packaged ones.

    Returns the exit status: 0 after a stop that was asked for, else the supervisor's, 128 + number
    when a signal ended it; 2 for options or a socket path that cannot work.
    """
    try:
        settings = _settings(argv)
    except SystemExit as end:
        if end.code:
            _let_kong_read()
        raise
    _open_standard_files()
    try:
        launcher = _Launcher(settings._replace(plugins=plugins))
    except OSError as error:
        print(f"kong-ai-proxy serve: cannot start the supervisor: {error}", file=sys.stderr)
        return 1
    return launcher.run()


class _Launcher:
    """Starts the supervisor and stays as long as it does."""

    def __init__(self, settings: Settings) -> None:
        self._stopping = False
        self._parent = _parent()
        handover = _HANDOVER_SECONDS if self._parent else 0.0
        settings = settings._replace(handover=handover)
        self._control, theirs = socket.socketpair()
        self._log, log = os.pipe()
        # Of the processes behind it, none may ever wait for Kong to read what it logs.
        os.set_blocking(log, False)
        try:
            self._supervisor = start_process(
                "kong_ai_proxy.pluginserver.supervisor",
                settings,
                theirs.fileno(),
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(log)

    def run(self) -> int:
        """Wait for the supervisor's end. Its exit status."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_alarm)
        self._wait()
        status = self._supervisor.wait()
        if status < 0:
            return 0 if self._stopping else 128 - status
        return status

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._log, select.POLLIN)
        for parent in self._parent:
            poll.register(parent, 0 if parent == _STDIN else select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._log in ready and not self._copy_log():
                poll.unregister(self._log)
            for parent in set(ready) - {self._log, self._control.fileno()}:
                poll.unregister(parent)
                self._stop()
            if self._control.fileno() in ready:
                break
        os.set_blocking(self._log, False)
        while self._copy_log():
            pass

    def _copy_log(self) -> bool:
        """Pass on one piece of what was logged. False when there is none."""
        try:
            data = os.read(self._log, _CHUNK)
        except OSError:
            return False
        _write_log(data)
        return bool(data)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stopping and number == signal.SIGINT:
            self._supervisor.send_signal(signal.SIGINT)
            signal.alarm(_KILL_SECONDS)
        self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._supervisor.send_signal(signal.SIGTERM)

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        self._supervisor.kill()


def _write_log(data: bytes) -> None:
    """Write to stderr unless that would block: Kong's worker stops reading when it is leaving."""
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(_STDERR, select.POLLOUT)
        if poll.poll(100):
            os.write(_STDERR, data)


def _parent() -> list[int]:
    """Descriptors that become ready when the process that started us ends, for one that gave us a
    pipe as stdin, as Kong does. A Kong worker that crashes kills nothing, and the next one starts
    another plugin server.

    By hand, from systemd or in a container stdin is no pipe, and the shell may end before us.
    """
    poll = select.poll()
    poll.register(_STDIN, 0)
    if not stat.S_ISFIFO(os.fstat(_STDIN).st_mode) or poll.poll(0):
        return []
    watched = [_STDIN]
    if hasattr(os, "pidfd_open"):  # a process forked by Kong meanwhile may hold the pipe
        with contextlib.suppress(OSError):
            watched.append(os.pidfd_open(os.getppid()))
    return watched


def _open_standard_files() -> None:
    """Have descriptors 0 to 2 be something, so that no socket of ours gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _let_kong_read() -> None:
    """Kong drops what a server wrote that ended before Kong has come to read it."""
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(2).st_mode):
            sys.stderr.flush()
            time.sleep(0.5)


def _settings(argv: list[str]) -> Settings:
    """The settings from the command line and the environment. Exits with status 2 on a mistake."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    for name, (_, convert, _) in _OPTIONS.items():
        variable = next(filter(os.environ.get, _variables(name)), None)
        if options[name] is None and variable:
            try:
                options[name] = convert(os.environ[variable])
            except argparse.ArgumentTypeError as error:
                parser.error(f"{variable}: {error}")
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    relay = {name: given.pop(name) for name in _RELAY_OPTIONS if name in given}
    if "socket" not in given:
        parser.error(
            "--socket PATH is missing (or KONG_AI_PROXY_SOCKET): the path that kong.conf has as "
            "pluginserver_ai_proxy_socket"
        )
    given["socket"] = os.path.abspath(given["socket"])
    if problem := socket_problem(given["socket"]):
        parser.error(f"cannot listen on {given['socket']}: {problem}")
    if given.get("protocol") == "msgpack":
        _one_worker(given)
    return _DEFAULTS._replace(**given, relay=RelaySettings(**relay))


def _one_worker(given: dict[str, Any]) -> None:
    if given.get("workers", 1) > 1:
        print(
            "kong-ai-proxy serve: over MsgPack:1 an event moves between connections, so one worker "
            f"serves in place of {given['workers']}; protobuf allows several",
            file=sys.stderr,
        )
    given["workers"] = 1


def _number(lowest: float, highest: float, unit: str = "") -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(
                f"expected a number{unit} from {lowest:g} to {highest:g}, got {text!r}"
            )
        return value

    return convert


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 64, got {text!r}")
    return value


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"expected {' or '.join(choices)}, got {text!r}")
        return text

    return convert


def _switch(text: str) -> bool:
    return _one_of(("on", "off"))(text) == "on"


def _ca_file(text: str) -> str:
    path = os.path.abspath(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise argparse.ArgumentTypeError(f"expected certificates in PEM format in {path}") from None
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error.strerror}") from None
    return path


def _proxy(text: str) -> str:
    try:
        return proxy_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _redis(text: str) -> str:
    try:
        return redis_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# What stands for the value in --help, how it is read, what it means.
_OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "socket": ("PATH", str, "Unix socket to listen on; kong.conf needs the same path"),
    "workers": ("N", _count, f"worker processes, 1 to 64 (default: {_DEFAULTS.workers})"),
    "protocol": (
        "protobuf|msgpack",
        _one_of(("protobuf", "msgpack")),
        "wire protocol, the same as dump's (default: protobuf); msgpack has one worker",
    ),
    "drain": (
        "SECONDS",
        _number(0, 86400, " of seconds"),
        f"what requests under way have after a stop (default: {_DEFAULTS.drain:g})",
    ),
    "event_time_limit": (
        "SECONDS",
        _number(0.1, _KONG_SECONDS - 1, " of seconds"),
        f"what one event may take (default: {_DEFAULTS.event_time_limit:g}); below the "
        f"{_KONG_SECONDS} s after which Kong gives up",
    ),
    "ca_file": (
        "PATH",
        _ca_file,
        "PEM file with certificates that the relay trusts, beside the system's, for providers",
    ),
    "https_proxy": (
        "URL",
        _proxy,
        "HTTP proxy through which the relay reaches https:// providers (also HTTPS_PROXY)",
    ),
    "first_token_timeout": (
        "SECONDS",
        _number(0.01, 86400, " of seconds"),
        "what a target has until the first content of a stream as long as another one is left, "
        "which is asked then (default: only the configured timeouts)",
    ),
    "min_stream_rate": (
        "EVENTS",
        _number(0.1, 10000, " of events a second"),
        "events a second with which a stream has to begin as long as another target is left; its "
        "first 10 events wait until they are there (default: any)",
    ),
    "time_budget": (
        "SECONDS",
        _number(0.01, 86400, " of seconds"),
        "what all targets of one request have together until its answer begins (default: no limit)",
    ),
    "prompt_affinity": (
        "on|off",
        _switch,
        "where consistent-hashing finds no header, hash how the conversation began, so that the "
        "provider's prompt cache is found again (default: off)",
    ),
    "no_proxy": (
        "LIST",
        str,
        "what the relay reaches without that proxy: names with all below them, addresses, "
        "networks, with commas between (also NO_PROXY)",
    ),
    "redis": (
        "URL",
        _redis,
        "Redis through which nodes share the usage of targets and the failures that open a "
        "breaker: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS (default: "
        "each node for itself); process lists show a command line, so give a password by "
        "KONG_AI_PROXY_REDIS",
    ),
    "log_level": (
        "LEVEL",
        _one_of(("debug", "info", "warning", "error")),
        "debug, info, warning or error (default: info)",
    ),
}


_RELAY_OPTIONS = tuple(field.name for field in dataclasses.fields(RelaySettings))
_USUAL_VARIABLES = ("https_proxy", "no_proxy")


def _variables(option: str) -> list[str]:
    """The variables that stand for an option, the one that wins first."""
    usual = [option, option.upper()] if option in _USUAL_VARIABLES else []
    return ["KONG_AI_PROXY_" + option.upper(), *usual]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kong-ai-proxy serve",
        description="Run the plugin server of ai-proxy and ai-proxy-advanced, as Kong's "
        "pluginserver_NAME_start_cmd has to. `kong-ai-proxy kong-conf` prints that line. The "
        "socket is for its owner only: Kong's workers need to run as the same user.",
        epilog="Each option is also an environment variable, KONG_AI_PROXY_SOCKET and so on; the "
        "command line wins. Kong starts a plugin server with an empty environment. "
        "SIGTERM or SIGINT ends the server when its requests are finished, a second SIGINT at "
        "once. It also ends, finishing its requests, when it is killed by Kong; it then goes on "
        f"accepting until the next one is there, at most {_HANDOVER_SECONDS:g} s.",
    )
    for name, (metavar, convert, text) in _OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, metavar=metavar, type=convert, help=text)
    return parser
