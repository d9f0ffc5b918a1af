"""Raw sockets on both sides of the stand-in: what goes over the wire is what a test sees."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.declarative import PluginSpec
from kong_ai_proxy.gateway.schema import PluginSchema
from kong_ai_proxy.gateway.server import Gateway

SECONDS = 10.0
"""The deadline of anything a test waits for."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Message:
    """A request or a response as it was on the wire."""

    line: str
    headers: list[tuple[str, str]]  # latin-1, so that every byte has its letter
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


async def read_head(reader: asyncio.StreamReader) -> Message:
    """Raises IncompleteReadError when the connection ends first."""
    async with asyncio.timeout(SECONDS):
        block = await reader.readuntil(b"\r\n\r\n")
    first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return Message(first, [(k, v.strip()) for k, _, v in (line.partition(":") for line in lines)])


async def read_body(reader: asyncio.StreamReader, message: Message) -> bytes:
    """The body that Content-Length or chunked encoding announces, else none."""
    async with asyncio.timeout(SECONDS):
        if message.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await read_chunk(reader):
                body += chunk
            return body
        return await reader.readexactly(int(message.get("content-length") or 0))


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk; b"" for the last."""
    async with asyncio.timeout(SECONDS):
        size = int((await reader.readline()).split(b";")[0], 16)
        data = await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
        return data


@dataclass
class Connection:
    """The upstream's side of a connection while it answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass


Answer = bytes | Callable[[Message, Connection], Awaitable[None]]


@dataclass
class Upstream:
    """A server that records each request and answers with fixed bytes or a function's.

    With `read_body` off the function gets the head as soon as it is there.
    """

    answer: Answer = OK
    read_body: bool = True
    requests: list[Message] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=1 << 20, ssl=self.tls
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                await self._serve(Connection(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _serve(self, connection: Connection) -> None:
        if connection.writer.is_closing():
            raise ConnectionResetError
        async with asyncio.timeout(60):
            block = await connection.reader.readuntil(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        message = Message(first, [(key, value.strip()) for key, _, value in pairs])
        self.requests.append(message)
        if self.read_body:
            message.body = await read_body(connection.reader, message)
        if isinstance(self.answer, bytes):
            await connection.send(self.answer)
        else:
            await self.answer(message, connection)


class Runner:
    """Stands for the external plugins: calls a function in their place."""

    def __init__(self) -> None:
        self.ran: list[PluginEntity] = []
        self.action: Callable[[PluginEntity, RequestContext], Awaitable[None]] | None = None

    async def run(self, entity: PluginEntity, phase: str, ctx: RequestContext) -> None:
        assert phase == "access"
        self.ran.append(entity)
        if self.action is not None:
            await self.action(entity, ctx)

    async def close(self) -> None:
        pass


def spec(name: str = "ai-proxy", priority: int = 770) -> PluginSpec:
    """A plugin whose configuration has a default, a required field and a secret."""
    fields = [
        {"mark": {"type": "string", "default": "none"}},
        {"number": {"type": "integer", "between": [0, 9]}},
        {
            "auth": {
                "type": "record",
                "fields": [{"key": {"type": "string", "referenceable": True}}],
            }
        },
    ]
    config = {"type": "record", "required": True, "fields": fields}
    return PluginSpec(name, priority, PluginSchema({"name": name, "fields": [{"config": config}]}))


class Client:
    """One raw connection to the stand-in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, head: str, body: bytes = b"", *, host: str = "client.example") -> None:
        """Send `head`, a request line and header lines, with a Host header added."""
        first, *rest = [line.lstrip() for line in head.strip().split("\n")]
        lines = [f"{first} HTTP/1.1", *([f"Host: {host}"] if host else []), *rest]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def response(self, *, head_only: bool = False) -> Message:
        message = await read_head(self.reader)
        if not head_only and message.status not in (101, 204, 304):
            message.body = await read_body(self.reader, message)
        return message

    async def ask(self, head: str, body: bytes = b"", *, host: str = "client.example") -> Message:
        await self.request(head, body, host=host)
        return await self.response(head_only=head.strip().startswith("HEAD"))

    async def rest(self) -> bytes:
        """Everything until the stand-in closes. Raises ConnectionError when it aborts."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    def close(self) -> None:
        self.writer.close()


@dataclass
class StandIn:
    """A running stand-in with its log and the plugins' stand-in."""

    gateway: Gateway
    runner: Runner
    log: list[str]
    _clients: list[Client] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20))
        self._clients.append(client)
        return client

    async def ask(self, head: str, body: bytes = b"", *, host: str = "client.example") -> Message:
        """One request on a connection of its own."""
        return await (await self.client()).ask(head, body, host=host)

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()


@contextlib.asynccontextmanager
async def stand_in(
    deck: str, *, env: dict[str, str] | None = None, specs: list[PluginSpec] | None = None
) -> AsyncIterator[StandIn]:
    """A stand-in with this decK file (its `_format_version` is added)."""
    runner, log = Runner(), list[str]()
    gateway = await Gateway.start(
        '_format_version: "3.0"\n' + textwrap.dedent(deck),
        specs={each.name: each for each in (specs if specs is not None else [spec()])},
        runner=runner,
        env=env or {},
        log=log.append,
    )
    running = StandIn(gateway, runner, log)
    try:
        yield running
    finally:
        running.close_clients()
        await gateway.stop()


def service(port: int, *, route: str = "", extra: str = "", path: str = "") -> str:
    """A decK file with one Service on `port` and one Route with the path /r."""
    return f"""
services:
- name: s
  url: http://localhost:{port}{path}
  {extra}
  routes:
  - name: r
    paths: [/r]
    {route}
"""


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another task brings about."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def matches(pattern: str, text: str | None) -> bool:
    return text is not None and re.fullmatch(pattern, text) is not None
