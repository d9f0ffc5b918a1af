"""One request to an upstream and the head of its answer, tried again where nginx tries again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from kong_ai_proxy.gateway import http1
from kong_ai_proxy.gateway.stream import Stream
from kong_ai_proxy.gateway.upstream import Address, Pool

_NOT_IDEMPOTENT = frozenset({"POST", "LOCK", "PATCH"})  # nginx: proxy_next_upstream


class UpstreamFailed(Exception):  # noqa: N818 - a result, answered with `status`
    """No answer from the upstream: 502, or 504 after a timeout."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ClientFailed(Exception):  # noqa: N818 - a result, answered with `status`
    """The client's body broke off or was malformed while it was being sent on."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, each for one step: a connection, and every single write and read."""

    connect: float
    write: float
    read: float


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request ready to be sent."""

    method: str
    head: bytes
    body: Callable[[], AsyncGenerator[bytes]]
    chunked: bool = False
    repeatable: bool = True  # the body can be read again
    upgrade: bool = False  # 101 is a possible answer


@dataclass(slots=True)
class Response:
    """An answer whose body is still to be read."""

    head: http1.ResponseHead
    reader: http1.BodyReader
    stream: Stream
    address: Address
    sender: asyncio.Task[None]
    pool: Pool

    @property
    def framing(self) -> http1.Framing:
        return self.reader.framing

    async def first_piece(self) -> bytes:
        """What has arrived of the body together with the head, without waiting for more."""
        if self.head.status == 101 or self.framing.chunked or not self.stream.pending:
            return b""
        return await self.reader.read()

    def release(self) -> None:
        """Keep the connection for the next request if everything on it is complete."""
        sent = self.sender.done() and not self.sender.cancelled() and not self.sender.exception()
        if sent and self.reader.complete and self._keep_alive():
            self.pool.give_back(self.address, self.stream)
            return
        _give_up(self.sender, self.stream)

    def _keep_alive(self) -> bool:
        connection = http1.tokens(self.head.headers, b"connection")
        if self.head.status == 101 or b"close" in connection:
            return False
        by_length = self.framing.chunked or self.framing.length is not None
        return by_length and (self.head.version >= 1.1 or b"keep-alive" in connection)


class _TryFailed(Exception):  # noqa: N818 - private
    def __init__(self, status: int, reason: str, *, sent: bool, reused: bool) -> None:
        super().__init__(reason)
        self.status = status
        self.sent = sent
        self.reused = reused


async def exchange(
    pool: Pool, addresses: Sequence[Address], request: Outgoing, timeouts: Timeouts, retries: int
) -> Response:
    """Send a request and wait for the answer's head.

    After a failed connection, a lost one or a timeout the request is sent again, `retries` times at
    most, to one address after the other; a POST, LOCK or PATCH, or a body that cannot be read
    again, only while nothing of it has been sent. A kept connection that turns out to be closed
    costs no try. Raises UpstreamFailed and ClientFailed.
    """
    tries, attempt = retries + 1, 0
    while True:
        try:
            return await _attempt(pool, addresses[attempt % len(addresses)], request, timeouts)
        except _TryFailed as failure:
            attempt += 1
            tries += failure.reused and failure.status == 502
            once = request.method in _NOT_IDEMPOTENT or not request.repeatable
            if attempt >= tries or (failure.sent and once):
                raise UpstreamFailed(failure.status, str(failure)) from failure


async def _attempt(pool: Pool, address: Address, request: Outgoing, timeouts: Timeouts) -> Response:
    stream = pool.take(address)
    reused = stream is not None
    if stream is None:
        stream = await _connect(pool, address, timeouts.connect)
    sender = asyncio.create_task(_send(stream, request, timeouts.write))
    try:
        head = await _head(stream, sender, request, timeouts.read)
        framing = http1.response_framing(head, request.method)
    except TimeoutError as error:
        _give_up(sender, stream)
        raise _TryFailed(504, "upstream timed out", sent=True, reused=reused) from error
    except (OSError, EOFError) as error:
        _give_up(sender, stream)
        raise _TryFailed(502, str(error), sent=True, reused=reused) from error
    except http1.BadMessage as error:
        _give_up(sender, stream)
        raise UpstreamFailed(502, str(error)) from error
    except BaseException:
        _give_up(sender, stream)
        raise
    reader = http1.BodyReader(stream, framing)
    return Response(head, reader, stream, address, sender, pool)


async def _connect(pool: Pool, address: Address, seconds: float) -> Stream:
    try:
        return await pool.connect(address, seconds)
    except TimeoutError as error:
        raise _TryFailed(504, "connecting timed out", sent=False, reused=False) from error
    except OSError as error:
        raise _TryFailed(502, str(error), sent=False, reused=False) from error


async def _send(stream: Stream, request: Outgoing, seconds: float) -> None:
    await _write(stream, request.head, seconds)
    async with contextlib.aclosing(request.body()) as body:
        async for piece in body:
            await _write(stream, http1.chunk(piece) if request.chunked else piece, seconds)
    if request.chunked:
        await _write(stream, http1.LAST_CHUNK, seconds)


async def _write(stream: Stream, data: bytes, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await stream.write(data)


async def _head(
    stream: Stream, sender: asyncio.Task[None], request: Outgoing, seconds: float
) -> http1.ResponseHead:
    """The answer's head; it may come before the request is sent whole."""
    reading = asyncio.create_task(_read_head(stream, request))
    try:
        await asyncio.wait({reading, sender}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            failure = sender.exception()
            if isinstance(failure, TimeoutError | ClientFailed):
                raise failure
        async with asyncio.timeout(seconds):
            return await reading
    finally:
        reading.cancel()


async def _read_head(stream: Stream, request: Outgoing) -> http1.ResponseHead:
    while True:
        block = await http1.read_head(stream)
        if not block:
            raise EOFError("the upstream closed the connection without an answer")
        head = http1.parse_response(block)
        if head.status >= 200 or (head.status == 101 and request.upgrade):
            return head
        if head.status == 101:
            raise http1.BadMessage("the upstream switched protocols without being asked")


def _give_up(sender: asyncio.Task[None], stream: Stream) -> None:
    sender.cancel()
    sender.add_done_callback(_retrieve)
    stream.abort()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the result, so that asyncio does not report a failure nobody waits for."""
    if not task.cancelled():
        task.exception()
