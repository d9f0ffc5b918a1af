"""The client's side: connections kept alive, one request after the other, as nginx serves them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus

from kong_ai_proxy.gateway import http1
from kong_ai_proxy.gateway.answers import SERVER, error
from kong_ai_proxy.gateway.context import Exit
from kong_ai_proxy.gateway.http1 import RawHeaders
from kong_ai_proxy.gateway.paths import wire
from kong_ai_proxy.gateway.stream import Stream

_HEADER_SECONDS = 60.0  # nginx: client_header_timeout
_BODY_SECONDS = 60.0  # nginx: client_body_timeout, between two reads
_KEEP_ALIVE_SECONDS = 75.0  # nginx: keepalive_timeout
_SEND_SECONDS = 60.0  # nginx: send_timeout, between two writes
_LINGER_SECONDS = 5.0  # nginx: lingering_timeout
_LINGER_BYTES = 1024 * 1024


class ClientGone(Exception):  # noqa: N818 - a result
    """The client left, or stopped reading, before its answer was complete."""


class ClientBody:
    """A request's body; asks for it first where the client waits with `Expect: 100-continue`."""

    def __init__(self, head: http1.RequestHead, stream: Stream, framing: http1.Framing) -> None:
        self.framing = framing
        self._reader = http1.BodyReader(stream, framing)
        self._stream = stream
        expected = http1.tokens(head.headers, b"expect")
        self.awaited = b"100-continue" in expected and not framing.empty and head.version >= 1.1

    @property
    def complete(self) -> bool:
        return self._reader.complete

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises EOFError, BadMessage (408 after a minute without
        a byte) and OSError."""
        if self.awaited:
            self.awaited = False
            await self._stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await self._reader.read()
        except TimeoutError as failure:
            raise http1.BadMessage("the body did not arrive in time", 408) from failure


class ClientExchange:
    """One request of a client, and the way to answer it."""

    def __init__(self, head: http1.RequestHead, stream: Stream, framing: http1.Framing) -> None:
        self.head = head
        self.stream = stream
        self.body = ClientBody(head, stream, framing)
        self.started = False  # the answer's head is sent
        self.tunnelling = False  # no longer HTTP: the client may close its half on its own
        self.keep_alive = _keep_alive(head)
        self._chunked = False
        self._silent = head.method == "HEAD"

    @property
    def peer(self) -> tuple[str, int]:
        peer = self.stream.transport.get_extra_info("peername")
        return str(peer[0]), int(peer[1])

    async def start(
        self,
        status: int,
        reason: bytes,
        first: RawHeaders,
        rest: RawHeaders,
        framing: http1.Framing,
        *,
        length: bytes | None = None,
        piece: bytes = b"",
    ) -> None:
        """Send the answer's head, and with it the body's first piece if that is there already.

        `length` is the Content-Length to name where no body follows.
        """
        middle: RawHeaders = []
        if length is not None:
            middle.append((b"Content-Length", length))
        elif framing.length is not None and not framing.empty:
            middle.append((b"Content-Length", b"%d" % framing.length))
        elif not framing.empty:
            self._chunked = self.head.version >= 1.1
            self.keep_alive = self.keep_alive and self._chunked
            middle += [(b"Transfer-Encoding", b"chunked")] if self._chunked else []
        self.keep_alive = self.keep_alive and not self.body.awaited
        connection = b"keep-alive" if self.keep_alive else b"close"
        middle.append((b"Connection", b"upgrade" if status == 101 else connection))
        self.started = True
        line = b"HTTP/1.1 %d %b\r\n" % (status, reason)
        head = line + http1.render_headers([*first, *middle, *rest])
        await self._write(head + self._framed(piece))

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body; waits while the client does not read."""
        await self._write(self._framed(piece))

    def _framed(self, piece: bytes) -> bytes:
        return http1.chunk(piece) if piece and self._chunked else piece

    async def finish(self) -> None:
        """Mark the body as complete."""
        if self._chunked:
            await self._write(http1.LAST_CHUNK)

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self.stream.write(data)
        except (OSError, TimeoutError) as failure:
            raise ClientGone(str(failure)) from failure

    async def answer(self, exit_: Exit, rest: RawHeaders) -> None:
        """Send an answer of Kong's own; `rest` goes behind its headers."""
        given = [(wire(name), wire(value)) for name, value in exit_.headers]
        given = [item for item in given if item[0].lower() != b"content-length"]
        first = [item for item in given if item[0].lower() == b"content-type"]
        first.insert(0, (b"Date", formatdate(usegmt=True).encode()))
        others = [item for item in given if item[0].lower() != b"content-type"]
        silent = self._silent or exit_.status in (204, 304)
        body = b"" if silent else exit_.body
        length = b"0" if exit_.status == 204 else b"%d" % len(exit_.body)
        framing = http1.Framing(length=len(body))
        await self.start(
            exit_.status,
            _reason(exit_.status),
            first,
            others + rest,
            framing,
            length=length,
            piece=body,
        )


def own_headers(request_id: str, milliseconds: int) -> RawHeaders:
    """What every answer of Kong's own carries."""
    return [
        (b"X-Kong-Response-Latency", b"%d" % milliseconds),
        (b"Server", SERVER.encode()),
        (b"X-Kong-Request-Id", request_id.encode()),
    ]


def _keep_alive(head: http1.RequestHead) -> bool:
    connection = http1.tokens(head.headers, b"connection")
    return b"close" not in connection and (head.version >= 1.1 or b"keep-alive" in connection)


# Where nginx's words differ from the registered ones.
_REASONS = {
    302: b"Moved Temporarily",
    408: b"Request Time-out",
    413: b"Request Entity Too Large",
    414: b"Request-URI Too Large",
    416: b"Requested Range Not Satisfiable",
    503: b"Service Temporarily Unavailable",
    504: b"Gateway Time-out",
}


def _reason(status: int) -> bytes:
    if status in _REASONS:
        return _REASONS[status]
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase.encode()
    return b""


Handler = Callable[[ClientExchange], Awaitable[None]]


class Listener:
    """Accepts connections and hands every request to `handler`.

    `handler` answers, or aborts the stream; it is cancelled when the client leaves.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Accept on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, sock=sock, backlog=511)

    async def stop(self) -> None:
        """Stop accepting and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self) -> Stream:
        stream = Stream()
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        return stream

    async def _serve(self, stream: Stream) -> None:
        seconds = _HEADER_SECONDS
        try:
            while await self._serve_one(stream, seconds):
                seconds = _KEEP_ALIVE_SECONDS
        except (OSError, EOFError, TimeoutError, ClientGone):
            stream.abort()
        finally:
            stream.close()

    async def _serve_one(self, stream: Stream, seconds: float) -> bool:
        """Read one request and have it answered; whether another may follow."""
        try:
            async with asyncio.timeout(seconds):
                block = await http1.read_head(stream)
            if not block:
                return False
            head = http1.parse_request(block)
            client = ClientExchange(head, stream, http1.request_framing(head))
        except http1.BadMessage as failure:
            await _refuse(stream, failure)
            return False
        await self._handle(client)
        return client.started and await _settle(client)

    async def _handle(self, client: ClientExchange) -> None:
        handling = asyncio.ensure_future(self._handler(client))
        leaving = asyncio.ensure_future(client.stream.gone.wait())
        try:
            await asyncio.wait({handling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not handling.done() and not client.tunnelling:
                handling.cancel()
            await handling
        except asyncio.CancelledError:
            if not client.stream.gone.is_set():
                raise
            client.stream.abort()
        finally:
            leaving.cancel()
            handling.cancel()
            await asyncio.gather(handling, leaving, return_exceptions=True)


async def _refuse(stream: Stream, failure: http1.BadMessage) -> None:
    """Answer what is not a request that could be proxied, and close."""
    request_id = secrets.token_hex(16)
    exit_ = error(failure.status, request_id=request_id, accept="text/plain")
    head = http1.RequestHead("GET", b"/", 1.1, [(b"Connection", b"close")])
    client = ClientExchange(head, stream, http1.NO_BODY)
    await client.answer(exit_, own_headers(request_id, 0))
    await _linger(stream)


async def _settle(client: ClientExchange) -> bool:
    """After an answer: read what is left of the request, so that the next one can follow."""
    stream = client.stream
    if stream.transport.is_closing() or client.tunnelling:
        return False
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while client.keep_alive and not client.body.complete and left > 0:
                left -= len(await client.body.read())
    except (TimeoutError, EOFError, OSError, http1.BadMessage):
        client.keep_alive = False
    if client.keep_alive and client.body.complete:
        return True
    await _linger(stream)
    return False


async def _linger(stream: Stream) -> None:
    """Close without losing the answer: a client still sending would otherwise see a reset."""
    if stream.transport.can_write_eof():
        with contextlib.suppress(OSError):
            stream.transport.write_eof()
    left = _LINGER_BYTES
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0 and (data := await stream.read()):
                left -= len(data)
