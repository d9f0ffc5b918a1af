"""Providers that do what a script says, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from tests.recorder import Received

PIECE = 1 << 16

CHAT = "/v1/chat/completions"


def answer(
    body: bytes = b'{"object":"scripted"}',
    status: str = "200 OK",
    headers: str = "Content-Type: application/json\r\n",
) -> bytes:
    """A whole answer with its length."""
    return (
        f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        + body
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Connection:
    """One connection of the relay's, on the provider's side."""

    def __init__(
        self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._upstream = upstream
        self.reader = reader
        self.writer = writer

    async def request(self) -> Received:
        """The next request with its body, noted in `received`. Raises IncompleteReadError."""
        received = await self.head()
        body = b"".join([piece async for piece in self.body(received)])
        received = Received(received.method, received.target, received.headers, body)
        self._upstream.received.append(received)
        return received

    async def head(self) -> Received:
        """The next request's head, noted in `heads`."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
        received = Received(method, target, headers, b"")
        self._upstream.heads.append(received)
        return received

    async def body(self, received: Received) -> AsyncIterator[bytes]:
        """The pieces of the body that belongs to this head."""
        if (received.header("transfer-encoding") or "").lower() == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
            return
        left = int(received.header("content-length") or 0)
        while left:
            piece = await self.reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():  # uvloop would raise RuntimeError
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def finish(self) -> None:
        """No more comes, but reading goes on."""
        self.writer.write_eof()

    def reset(self) -> None:
        """End the connection with RST, losing what has not left yet."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> float:
        """Wait until the relay has closed the connection; the loop's time then."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(PIECE):
                pass
        return asyncio.get_running_loop().time()


Script = Callable[[Connection], Awaitable[None]]


class Upstream:
    """Runs `script` for each connection; closes it afterwards. What a script raises about its
    connection is none of the test's business, everything else fails the test."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self.heads: list[Received] = []
        self.received: list[Received] = []
        self.connections = 0
        self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and kind is None:
                raise result

    def break_off(self) -> None:
        """End all scripts, and their connections with them."""
        for task in self._tasks:
            task.cancel()

    def url(self, path: str = CHAT, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self._script(Connection(self, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError):
                await writer.wait_closed()


def always(*data: bytes) -> Script:
    """Answers every request of a connection with the same bytes, each piece written by itself."""

    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            for piece in data:
                await connection.send(piece)

    return script


def once(*data: bytes) -> Script:
    """Answers the first request and closes."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for piece in data:
            await connection.send(piece)

    return script


class Numbers:
    """Numbers that a script waits for, one after the other; None is their end."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int | None] = asyncio.Queue()

    def allow(self, number: int | None) -> None:
        self._queue.put_nowait(number)

    async def __aiter__(self) -> AsyncIterator[int]:
        while (number := await self._queue.get()) is not None:
            yield number
