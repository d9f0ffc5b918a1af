"""The stand-in for Kong: a gateway for machines without one, for development and tests.

What differs from Kong, knowing and on purpose:

- with `request_buffering` on, a body is read before the plugins run, not after them;
- answers always stream with backpressure, whatever `response_buffering` says;
- an upstream's nonsense (no HTTP, a 101 that nobody asked for) is 502; nginx passes it on;
- requests that are not HTTP get their error as plain text, whatever they accept;
- plugins run in the access phase only;
- no TLS, HTTP/2 or gRPC towards clients, no Upstream entities, one process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from aiohttp import web

from kong_ai_proxy.config import deck as deck_files
from kong_ai_proxy.gateway import admin, declarative
from kong_ai_proxy.gateway.configuration import Configuration, Entity
from kong_ai_proxy.gateway.declarative import DeclarativeError, PluginSpec
from kong_ai_proxy.gateway.listener import Listener
from kong_ai_proxy.gateway.plugins import ExternalPlugins, ServerInfo
from kong_ai_proxy.gateway.proxy import PluginRunner, Proxy
from kong_ai_proxy.gateway.schema import PluginSchema

_LOGGER = logging.getLogger("kong_ai_proxy.gateway")
_DUMP_PROTOCOLS = {"ProtoBuf:1": "protobuf", "MsgPack:1": "msgpack"}
_DUMP_SECONDS = 30.0

BANNER = "this is kong-ai-proxy's stand-in for Kong: for development and tests, not for production"


class DumpError(RuntimeError):
    """A plugin's query_cmd did not give a document that Kong could read."""


class Gateway:
    """A running stand-in.

        gateway = await Gateway.start(Path("kong.yaml"), servers={"ai-proxy": info}, port=8000)
        ...
        await gateway.stop()

    It is also the `Node` that the Admin API (admin.py) works on.
    """

    def __init__(
        self,
        specs: Mapping[str, PluginSpec],
        runner: PluginRunner,
        env: Mapping[str, str],
        log: Callable[[str], None],
    ) -> None:
        self._specs = specs
        self._runner = runner
        self._env = env
        self._log = log
        self._next_seq = declarative.sequence()
        self._configuration: Configuration | None = None
        self._proxy = Proxy(self._in_force, runner, log)
        self._listener = Listener(self._proxy.handle)
        self._admin: web.AppRunner | None = None
        self.url = ""
        self.admin_url = ""

    @classmethod
    async def start(
        cls,
        deck: str | Path,
        *,
        servers: Mapping[str, ServerInfo] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        admin_port: int = 0,
        env: Mapping[str, str] | None = None,
        specs: Mapping[str, PluginSpec] | None = None,
        runner: PluginRunner | None = None,
        log: Callable[[str], None] | None = None,
    ) -> Gateway:
        """Start on a decK file: its path, or its text.

        `servers` names the external plugins and where their plugin servers listen; each plugin's
        schema comes from running its query_cmd once, unless `specs` gives it. `port` 0 is a free
        one. `env` is for `${{ env "DECK_X" }}` and `{vault://env/x}`, the process's own by default.
        `log` gets Kong's error log, line by line. Raises DeclarativeError, DumpError, and OSError
        when a port is taken.
        """
        given = dict(servers or {})
        found = dict(specs or {})
        missing = [info for name, info in given.items() if name not in found]
        found |= {spec.name: spec for spec in await asyncio.gather(*map(query, missing))}
        gateway = cls(
            found,
            runner or ExternalPlugins(given),
            os.environ if env is None else env,
            log or _LOGGER.info,
        )
        try:
            await gateway.reload(deck)
            await gateway._listen(host, port, admin_port)
        except BaseException:
            await gateway.stop()
            raise
        return gateway

    async def _listen(self, host: str, port: int, admin_port: int) -> None:
        self._log(f"[notice] {BANNER}")
        with _bind(host, port) as sock, _bind(host, admin_port) as admin_sock:
            self.url, self.admin_url = _url(host, sock), _url(host, admin_sock)
            await self._listener.start(sock.dup())
            self._admin = web.AppRunner(
                admin.application(self), access_log=None, shutdown_timeout=1.0
            )
            await self._admin.setup()
            await web.SockSite(self._admin, admin_sock.dup()).start()

    async def stop(self) -> None:
        """End every connection, close what the plugins' side holds, remove temporary files."""
        await self._listener.stop()
        if self._admin is not None:
            await self._admin.cleanup()
        await self._runner.close()
        self._proxy.close()

    async def reload(self, deck: str | Path) -> None:
        """Put another decK file into force, at once and as a whole.

        Requests under way finish with the configuration they began with. Raises DeclarativeError
        and keeps the old one.
        """
        try:
            if isinstance(deck, Path):
                read = deck_files.read(deck, self._env)
            else:
                read = deck_files.parse_text(deck, "declarative configuration", self._env)
        except deck_files.DeckError as error:
            raise DeclarativeError.unreadable(error) from error
        configuration = declarative.load(
            read, specs=self._specs, env=self._env, next_seq=self._next_seq
        )
        for warning in configuration.warnings:
            self._log(f"[warn] {warning}")
        self._configuration = configuration

    def _in_force(self) -> Configuration:
        assert self._configuration is not None, "no configuration loaded"
        return self._configuration

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the stand-in passes over in the file in force, and what it could not resolve."""
        return self._in_force().warnings

    @property
    def schemas(self) -> Mapping[str, PluginSchema]:
        """The schemas of the external plugins, by name."""
        return {name: spec.schema for name, spec in self._specs.items()}

    def entities(self, kind: str) -> Iterable[Entity]:
        """Entities of one kind (`services`, `plugins`, ...) as Kong stores them."""
        return self._in_force().entities.get(kind, {}).values()


def _url(host: str, sock: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{sock.getsockname()[1]}"


def _bind(host: str, port: int) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: without that, small
    # pieces of a stream wait for the client's delayed acknowledgement, 40 ms each.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def query(info: ServerInfo) -> PluginSpec:
    """A plugin as its query_cmd describes it, run as Kong runs it. Raises DumpError."""
    protocol = _DUMP_PROTOCOLS[info.protocol]
    command = [sys.executable, "-m", "kong_ai_proxy", "dump", info.name, "--protocol", protocol]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_DUMP_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise DumpError(f"{info.name}: no answer from {' '.join(command)}") from error
    if process.returncode != 0:
        raise DumpError(f"{info.name}: {errors.decode(errors='replace').strip()}")
    return parse_dump(info, output)


def parse_dump(info: ServerInfo, output: bytes) -> PluginSpec:
    """The first plugin of a dump, as Kong 3.9 and later read it. Raises DumpError."""
    try:
        document = json.loads(output)
        if document.get("Protocol", "MsgPack:1") != info.protocol:
            raise DumpError(f"{info.name}: the dump says {document.get('Protocol')}")
        plugin = document["Plugins"][0]
        schema = PluginSchema(plugin["Schema"])
        return PluginSpec(str(plugin["Name"]), int(plugin["Priority"]), schema)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DumpError(f"{info.name}: not a plugin document: {error!r}") from error
