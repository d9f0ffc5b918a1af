"""Redis servers for tests, each on a free port of 127.0.0.1 with a directory of its own.

    with redis_server(password="secret", tls=True) as server: server.url, server.ca_file
    with redis_cluster(3) as servers: ...
    with redis_server() as server, redis_sentinel(server) as sentinel: ...

A test that asks for one is skipped where no redis-server is on the PATH.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.gateways import free_port
from tests.unit.relay import authorities

MASTER = "mymaster"
"""The name under which a sentinel knows its server."""

_SECONDS = 15.0  # until a server must answer, on a busy machine
_PORT_ATTEMPTS = 5  # somebody else may take a port that was free
_LOOK = 0.01


class RedisServer:
    """A redis-server that may be ended and started again on its port.

    It keeps nothing over its end but what `client().save()` wrote before.
    """

    _arguments: tuple[str, ...] = ()

    def __init__(
        self, folder: Path, password: str | None, ca_file: str | None, lines: list[str]
    ) -> None:
        self.password = password
        self.ca_file = ca_file
        self._folder = folder
        self._lines = lines
        for left in reversed(range(_PORT_ATTEMPTS)):
            self.port = free_port()
            try:
                self.start()
                return
            except RuntimeError:
                if not left:
                    raise

    @property
    def url(self) -> str:
        """With the password; rediss://localhost, the name in the certificate, for TLS."""
        secret = f":{self.password}@" if self.password else ""
        if self.ca_file:
            return f"rediss://{secret}localhost:{self.port}"
        return f"redis://{secret}127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """A new connection pool; close it, or use it as a context manager."""
        options: dict[str, Any] = {"ssl_ca_certs": self.ca_file} if self.ca_file else {}
        return redis.Redis.from_url(self.url, socket_timeout=_SECONDS, **options)

    def start(self) -> None:
        """Start it, or start it again. Raises RuntimeError with what it logged if it does not."""
        log = self._folder / "log"
        (self._folder / "redis.conf").write_text("\n".join([*self._ports(), *self._lines]))
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                ["redis-server", "redis.conf", *self._arguments],
                cwd=self._folder,
                stdout=file,
                stderr=file,
            )
        limit = time.monotonic() + _SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > limit:
                self.kill()
                raise RuntimeError(f"redis-server did not start: {log.read_text()}")
            time.sleep(_LOOK)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Have it answer nothing, with its connections open, until `thaw`."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        self._process.send_signal(signal.SIGCONT)

    def _ports(self) -> list[str]:
        if self.ca_file is None:
            return [f"port {self.port}"]
        return ["port 0", f"tls-port {self.port}"]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:  # refused, or still loading
            return False


class _Sentinel(RedisServer):
    _arguments = ("--sentinel",)


@contextlib.contextmanager
def redis_server(*, password: str | None = None, tls: bool = False) -> Iterator[RedisServer]:
    """A server; `password` is the default user's. With `tls` it speaks nothing else, and only who
    knows `ca_file` trusts it."""
    with _running(RedisServer, _PLAIN, password, tls=tls) as server:
        yield server


@contextlib.contextmanager
def redis_cluster(nodes: int = 1, *, password: str | None = None) -> Iterator[list[RedisServer]]:
    """A cluster of masters with an equal share of the slots each."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_cluster_node(password)) for _ in range(nodes)]
        _join(servers)
        yield servers


@contextlib.contextmanager
def redis_sentinel(master: RedisServer, *, password: str | None = None) -> Iterator[RedisServer]:
    """A sentinel that watches `master` under the name MASTER; `password` is its own."""
    lines = [f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1"]
    if master.password:
        lines.append(f"sentinel auth-pass {MASTER} {master.password}")
    with _running(_Sentinel, lines, password) as server:
        yield server


_PLAIN = ['save ""', "appendonly no"]


@contextlib.contextmanager
def _running(
    kind: type[RedisServer], lines: list[str], password: str | None, *, tls: bool = False
) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the PATH (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory(prefix="redis") as name:
        folder = Path(name)
        given = ["bind 127.0.0.1", *lines, *([f"requirepass {password}"] if password else [])]
        ca_file = _certificate(folder, given) if tls else None
        server = kind(folder, password, ca_file, given)
        try:
            yield server
        finally:
            server.kill()


def _certificate(folder: Path, lines: list[str]) -> str:
    """Make a certificate and tell the server. The file of who signed it."""
    ca_file = authorities.make(folder).ca_file
    files = "tls-cert-file signed.pem", "tls-key-file key.pem", f"tls-ca-cert-file {ca_file}"
    lines += [*files, "tls-auth-clients no"]
    return ca_file


def _cluster_node(password: str | None) -> contextlib.AbstractContextManager[RedisServer]:
    lines = [*_PLAIN, "cluster-enabled yes", f"cluster-port {free_port()}"]
    if password:
        lines.append(f"masterauth {password}")
    return _running(RedisServer, lines, password)


def _join(servers: list[RedisServer]) -> None:
    share = 16384 // len(servers)
    for number, server in enumerate(servers):
        first = number * share
        last = 16383 if server is servers[-1] else first + share - 1
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in servers[:number]:
                bus = _bus_port(other)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
    limit = time.monotonic() + _SECONDS
    while not all(_is_whole(server, len(servers)) for server in servers):
        if time.monotonic() > limit:
            raise RuntimeError("the cluster did not come together")
        time.sleep(_LOOK)


def _bus_port(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.config_get("cluster-port")["cluster-port"])


def _is_whole(server: RedisServer, nodes: int) -> bool:
    with server.client() as client:
        state = client.cluster("INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == str(nodes))
