"""What the tests of known failures are made of: a provider that follows a script, a client that
works with bytes, and a gateway whose plugin server the test starts itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import brotli
import orjson
import pytest

from kong_ai_proxy.gateway.declarative import PluginSpec
from kong_ai_proxy.gateway.managed import ManagedServer
from kong_ai_proxy.gateway.plugins import ServerInfo
from kong_ai_proxy.gateway.server import Gateway, query
from tests import decks
from tests.gateways import (
    GatewayFactory,
    InstalledKong,
    Plan,
    Protocol,
    RunningGateway,
    processes_with,
)
from tests.recorder import Received

Json = dict[str, Any]

WAYS: dict[str, Json] = {"kong": {}, "relay": {"log_statistics": True}}
"""Who carries a request, and the `logging` that makes it so."""

CHAT: Json = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
STREAM: Json = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
MESSAGE = {"role": "assistant", "content": "good day"}
CHOICE = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
ANSWER: Json = {"id": "1", "object": "chat.completion", "choices": [CHOICE], "usage": USAGE}
JSON_TYPE = b"Content-Type: application/json\r\n"
SSE = b"Content-Type: text/event-stream\r\n"
DONE = b"data: [DONE]\n\n"
DEADLINE = 20.0


def event(text: str | None) -> bytes:
    """One event of a streamed chat; the one with the usage for None."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    chunk: Json = {"id": "1", "object": "chat.completion.chunk", "choices": choices, "usage": None}
    if text is None:
        chunk.update(choices=[], usage=USAGE)
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body; b"" ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(status: str = "200 OK", headers: bytes = b"", length: int | None = None) -> bytes:
    """An answer's head; without a length its body is chunked."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"HTTP/1.1 %b\r\n%b%b\r\n\r\n" % (status.encode(), headers, framing)


def whole(
    body: bytes = json.dumps(ANSWER).encode(),
    status: str = "200 OK",
    headers: bytes = JSON_TYPE,
) -> bytes:
    """A whole answer."""
    return head(status, headers, len(body)) + body


def compressed(coding: str, parts: list[bytes]) -> list[bytes]:
    """The parts in this content coding, each as much as a decoder needs to give it out."""
    if coding == "identity":
        return parts
    if coding == "br":
        encoder = brotli.Compressor()
        pieces = [encoder.process(part) + encoder.flush() for part in parts]
        return [*pieces, encoder.finish()]
    deflate = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    pieces = [deflate.compress(part) + deflate.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*pieces, deflate.flush()]


@cache
def fifty_megabytes() -> bytes:
    """JSON of 50 MB as nobody would write it, so that what is written anew is seen."""
    content = "\\u00e9 caf\u00e9 \\/ \\ud83d\\ude00 1.0e+2 " * 3000
    message = f'{{ "role" :"user",\t"content":"{content}" ,"n":1.50}}'
    messages = ",\n".join([message] * (50 * 1024 * 1024 // len(message.encode()) + 1))
    return f'{{"model":"gpt-4o","x" : -0.0,"messages":[ {messages} ]}}'.encode()


def with_an_image(megabytes: int) -> bytes:
    """A chat with an image that has this size in base64."""
    image = base64.b64encode(os.urandom(megabytes * 1024 * 1024 * 3 // 4)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    content = [{"type": "text", "text": "what is this?"}, part]
    return orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]})


# ---- the provider


@dataclass
class Exchange:
    """One request, and the connection for its answer."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the other side has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Exchange], Awaitable[None]]


def always(answer: bytes) -> Script:
    """The script that gives this answer to everything."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(answer)

    return script


@dataclass
class Provider:
    """Follows `script` for each request; a connection that a script closes ends there."""

    script: Script = field(default_factory=lambda: always(whole()))
    received: list[Received] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, path: str = "/v1/chat/completions", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                request = await _request(reader)
                self.received.append(request)
                await self.script(Exchange(request, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Received:
    start = await reader.readexactly(1)
    if start == b"\x16":  # TLS begins: a plain server answers that with an error and closes
        raise ConnectionAbortedError
    block = start + await reader.readuntil(b"\r\n\r\n")
    first, *lines = block.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    request = Received(method, target, [(name, value.strip()) for name, _, value in pairs], b"")
    if request.header("transfer-encoding") == "chunked":
        request.body = b"".join([piece async for piece in _chunks(reader)])
    else:
        request.body = await reader.readexactly(int(request.header("content-length") or 0))
    return request


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


# ---- the client


class RawClient:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[RawClient]:
        place = urlsplit(url)
        connection = await asyncio.open_connection(place.hostname, place.port)
        client = cls(*connection)
        try:
            yield client
        finally:
            client.leave()

    def begin(self, body: bytes, path: str = "/chat", headers: bytes = b"") -> None:
        """Send the head of a request that has this body."""
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"%bContent-Length: %d\r\n\r\n" % (path.encode(), headers, len(body))
        )

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def head(self) -> bytes:
        """The head of the next answer, an interim one too."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readuntil(b"\r\n\r\n")

    def leave(self) -> None:
        self._writer.close()


# ---- gateways


def chat_deck(url: str, way: str, *more: Json, **changes: Any) -> str:
    """A gateway's file with /chat, carried by Kong or by the relay; `more` plugins on the route,
    `changes` to the configuration."""
    return decks.deck(chat_route("/chat", url, way, *more, **changes))


def chat_route(
    path: str, url: str, way: str, *more: Json, options: Json | None = None, **changes: Any
) -> Json:
    """One route for chats; `options` are the model's. Kong itself is told not to hold answers back;
    the relay tells it."""
    configuration = {**decks.config(url), "logging": WAYS[way], **changes}
    configuration["model"]["options"].update(options or {})
    made = decks.route(path, configuration, response_buffering=way != "kong")
    made["plugins"] += more
    return made


def services_deck(*services: Json, **top: Any) -> str:
    """A gateway's file with these Services."""
    return json.dumps({"_format_version": "3.0", "services": services, **top})


def service(name: str, *routes: Json, **changes: Any) -> Json:
    """A Service as the documentation wants it."""
    usual = {"url": "http://ai.invalid", "retries": 0, "read_timeout": 600000}
    return {"name": name, **usual, "routes": routes, **changes}


async def assert_carried_by(way: str, running: RunningGateway) -> None:
    """That the requests went the way that the test is about. The relay's log may come later."""
    limit = time.monotonic() + (DEADLINE if way == "relay" else 0)
    while "carrying " not in running.log() and time.monotonic() < limit:
        await asyncio.sleep(0.02)
    assert ("carrying " in running.log()) == (way == "relay")


def outcomes(log: str) -> list[Json]:
    """The relay's JSON lines in a plugin server's log."""
    lines = (line.partition(" kong_ai_proxy.outcome: ") for line in log.splitlines())
    return [json.loads(text) for _, found, text in lines if found]


class FileLog:
    """Kong's file-log, where there is a Kong: the stand-in's place is its plugin server's log."""

    def __init__(self, gateway: GatewayFactory, folder: Path) -> None:
        self.file = folder / "file.log"
        self._plugin = {"name": "file-log", "config": {"path": str(self.file)}}
        self._real = gateway.kind == "installed"
        if gateway.kind not in ("standin", "installed"):
            pytest.skip("the log file would be inside the container")

    @property
    def plugins(self) -> list[Json]:
        return [self._plugin] if self._real else []

    async def records(self, running: RunningGateway | OwnGateway, count: int) -> list[Json]:
        """What was logged of `count` requests that the relay carried. Waits for it."""
        async with asyncio.timeout(DEADLINE):
            while len(found := self._records(running)) < count:
                await asyncio.sleep(0.02)
        return found

    def _records(self, running: RunningGateway | OwnGateway) -> list[Json]:
        if not self._real:
            return outcomes(running.log())
        return [
            json.loads(line) for line in self.text().splitlines(keepends=True) if line[-1:] == "\n"
        ]

    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""


@dataclass
class OwnServer:
    """How a test starts its own plugin server: `plugins` in place of the packaged ones; while the
    file `dead` exists it ends as soon as it starts."""

    folder: Path
    protocol: Protocol = "protobuf"
    plugins: Path | None = None

    @property
    def dead(self) -> Path:
        return self.folder / "dead"

    def command(self, socket: str) -> str:
        """For `start_cmd`."""
        code = (
            "import os, sys; from kong_ai_proxy.pluginserver.serve import main; "
            f"os.path.exists({str(self.dead)!r}) and sys.exit('kept from starting'); "
            f"sys.exit(main(sys.argv[1:], plugins={self.plugins and str(self.plugins)!r}))"
        )
        options = ["--protocol", self.protocol, "--log-level", "debug", "--workers", "1"]
        return shlex.join([sys.executable, "-P", "-c", code, "--socket", socket, *options])


class OwnGateway:
    """A gateway with a plugin server of the test's own."""

    def __init__(self, url: str, socket: str, log: Callable[[], str], prefix: Path | None) -> None:
        self.url = url
        self.socket = socket
        self.log = log
        self.prefix = prefix
        """A real Kong's."""

    def kill_plugin_server(self) -> None:
        """Every process of it."""
        for pid in processes_with(self.socket):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def own_gateway(
    gateway: GatewayFactory, server: OwnServer, deck: str
) -> AsyncIterator[OwnGateway]:
    """A gateway of the wanted kind in front of `server`."""
    if gateway.kind == "standin":
        made = _own_stand_in(server, deck)
    elif gateway.kind == "installed":
        made = _own_kong(server, deck)
    else:
        pytest.skip("the plugin server would be inside the container")
    async with made as running:
        yield running


_SPECS: dict[Protocol, list[PluginSpec]] = {}


@contextlib.asynccontextmanager
async def _own_stand_in(server: OwnServer, deck: str) -> AsyncIterator[OwnGateway]:
    with tempfile.TemporaryDirectory(prefix="kap-") as folder:
        path = Path(folder) / "p.sock"
        lines: list[str] = []
        process = ManagedServer("ai-proxy", server.command(str(path)), path, lines.append)
        wire = {"protobuf": "ProtoBuf:1", "msgpack": "MsgPack:1"}[server.protocol]
        infos = {name: ServerInfo(name, path, wire) for name in ("ai-proxy", "ai-proxy-advanced")}
        if server.protocol not in _SPECS:  # as Kong, which asks once
            _SPECS[server.protocol] = await asyncio.gather(*map(query, infos.values()))
        found = {spec.name: spec for spec in _SPECS[server.protocol]}
        await process.start()
        try:
            stand_in = await Gateway.start(
                deck, servers=infos, specs=found, env={}, log=lines.append
            )
            try:
                yield OwnGateway(stand_in.url, str(path), lambda: "\n".join(lines), None)
            finally:
                await stand_in.stop()
        finally:
            await process.stop()


@contextlib.asynccontextmanager
async def _own_kong(server: OwnServer, deck: str) -> AsyncIterator[OwnGateway]:
    kong = InstalledKong(Plan("installed", server.protocol))
    changes = {"pluginserver_ai_proxy_start_cmd": server.command(kong.socket)}
    kong.plan = Plan("installed", server.protocol, changes=changes)
    try:
        await asyncio.to_thread(kong.start)
        assert await kong.healthy(), kong.all_logs()
        await kong.reload(deck)
        yield OwnGateway(kong.url, kong.socket, kong.all_logs, kong.prefix)
    finally:
        await asyncio.to_thread(kong.stop)
