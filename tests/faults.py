"""A provider that fails as its script says, below HTTP and within it.

    async with Faulty(Status(503, retry_after="7"), Good("hello")) as provider:
        ...  # provider.origin is a target's `upstream_url`, provider.received what it was asked

Each request takes the next step of the script, and so does each connection where the step comes
before any request; the last step is taken again and again. Answers are in the format of the path
that is asked (`tests.vendors`), as a stream where one is asked for. Connections are closed after
an answer, unless it `keeps` them: so the next attempt makes a new one.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import orjson
from typing_extensions import override

from tests.recorder import Received
from tests.unit.relay.upstreams import LAST_CHUNK, Connection, Upstream, chunk
from tests.vendors import JSON, Vendor, vendor_of, wants_stream

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    529: "Site is overloaded",
}

# ---- what is written


class Written(NamedTuple):
    """An answer's bytes: the head, and the body in the pieces in which it is written."""

    head: bytes
    body: tuple[bytes, ...]


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Odd')}"]
    lines += (f"{name}: {value}" for name, value in headers.items())
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _whole(status: int, body: bytes, headers: dict[str, str], encoding: str | None) -> Written:
    if encoding == "gzip":
        body, headers = gzip.compress(body, mtime=0), {**headers, "Content-Encoding": "gzip"}
    return Written(_head(status, {**headers, "Content-Length": str(len(body))}), (body,))


def _chunked(status: int, pieces: Sequence[bytes], headers: dict[str, str]) -> Written:
    head = _head(status, {**headers, "Transfer-Encoding": "chunked"})
    return Written(head, (*map(chunk, pieces), LAST_CHUNK))


# ---- steps


class Step:
    """What happens to a request, or to a connection."""


class AtConnect(Step, abc.ABC):
    """What happens before any request is read."""

    @abc.abstractmethod
    async def meet(self, connection: Connection) -> None:
        """Treat a connection, which is closed afterwards."""


class AtRequest(Step, abc.ABC):
    """What happens to a request that has come whole."""

    @abc.abstractmethod
    async def answer(self, connection: Connection, asked: Received) -> bool:
        """Answer it. Whether the connection is kept."""


class NeverReached(Step):
    """Nobody accepts connections. It is a state of the port: it must be the only step."""


class Refuse(NeverReached):
    """The port is closed: each connection is refused."""


class Unanswered(NeverReached):
    """The port never answers: a connection is neither made nor refused."""


@dataclass(frozen=True)
class CloseAtOnce(AtConnect):
    """Accept, and close; with `reset` by RST."""

    reset: bool = False

    @override
    async def meet(self, connection: Connection) -> None:
        if self.reset:
            connection.reset()


class Silent(AtConnect):
    """Accept, and say nothing: where TLS is expected its handshake hangs."""

    @override
    async def meet(self, connection: Connection) -> None:
        await connection.gone()


class NeverRead(AtConnect):
    """Accept, and take nothing of what is sent: a large body stops on its way."""

    @override
    async def meet(self, connection: Connection) -> None:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()  # until the script is broken off


class PlainText(AtConnect):
    """Answer the first bytes in plain HTTP, whatever they are."""

    @override
    async def meet(self, connection: Connection) -> None:
        await connection.reader.read(100)
        await connection.send(_head(400, {"Content-Length": "0"}))


class Answer(AtRequest):
    """Something that is sent."""

    keeps: bool = False

    @abc.abstractmethod
    def written(self, asked: Received) -> Written:
        """The bytes."""

    @override
    async def answer(self, connection: Connection, asked: Received) -> bool:
        head, body = self.written(asked)
        await connection.send(head)
        for piece in body:
            await connection.send(piece)
        return self.keeps

    def headers(self, media_type: str = JSON) -> dict[str, str]:
        """Those of each answer."""
        return {"Content-Type": media_type, "Connection": "keep-alive" if self.keeps else "close"}


@dataclass(frozen=True)
class Good(Answer):
    """A good answer that says `text`; in a stream each of its words is an event."""

    text: str = "hello"
    encoding: Literal["gzip"] | None = None
    keeps: bool = False

    @override
    def written(self, asked: Received) -> Written:
        vendor = vendor_of(asked)
        if not wants_stream(asked):
            body = orjson.dumps(vendor.whole(self.text))
            return _whole(200, body, self.headers(), self.encoding)
        words = [vendor.content(word) for word in _words(self.text)]
        pieces = (*vendor.opening(), *words, *vendor.closing())
        return _chunked(200, pieces, self.headers(vendor.stream_type))


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


@dataclass(frozen=True)
class Status(Answer):
    """An error of this status, with the vendor's body, or with `body`."""

    status: int
    retry_after: str | None = None
    body: bytes | None = None
    encoding: Literal["gzip"] | None = None
    message: str = "told to fail"
    keeps: bool = False

    @override
    def written(self, asked: Received) -> Written:
        error = vendor_of(asked).error(self.status, self.message)
        body = orjson.dumps(error) if self.body is None else self.body
        more = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
        return _whole(self.status, body, {**self.headers(), **more}, self.encoding)


@dataclass(frozen=True)
class ErrorEvent(Answer):
    """200, and in the stream an error that means `status`: first of all, after the vendor's
    `opening` events, or after an event that says `after`. Not in a stream: as the whole body."""

    status: int = 529
    opening: bool = True
    after: str = ""
    message: str = "told to fail"

    @override
    def written(self, asked: Received) -> Written:
        vendor = vendor_of(asked)
        if not wants_stream(asked):
            body = orjson.dumps(vendor.error(self.status, self.message))
            return _whole(200, body, self.headers(), None)
        pieces = [*self._before(vendor), vendor.failing(self.status, self.message)]
        return _chunked(200, pieces, self.headers(vendor.stream_type))

    def _before(self, vendor: Vendor) -> Sequence[bytes]:
        opening = vendor.opening() if self.opening or self.after else ()
        return (*opening, vendor.content(self.after)) if self.after else opening


@dataclass(frozen=True)
class Raw(Answer):
    """These bytes."""

    data: bytes

    @override
    def written(self, asked: Received) -> Written:
        return Written(self.data, ())


@dataclass(frozen=True)
class TooShort(Answer):
    """A 200 that ends, in good order, `missing` bytes before its Content-Length."""

    missing: int = 10

    @override
    def written(self, asked: Received) -> Written:
        body = orjson.dumps(vendor_of(asked).whole("hello"))
        headers = {**self.headers(), "Content-Length": str(len(body))}
        return Written(_head(200, headers), (body[: -self.missing],))


GARBAGE = Raw(b"hello\r\n\r\n")
ODD_STATUS = Raw(b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n")
CONTROL_CHARACTER = Raw(b"HTTP/1.1 200 OK\r\nX-Odd: a\x01b\r\nContent-Length: 2\r\n\r\n{}")
MANY_HEADERS = Raw(b"HTTP/1.1 200 OK\r\n" + b"X-Many: y\r\n" * 5000 + b"\r\n")
HUGE_HEADER = Raw(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"z" * 100_000 + b"\r\n\r\n")


@dataclass(frozen=True)
class Trickle(AtRequest):
    """An answer of which `size` bytes come every `every` seconds; the head too, where it is said.
    It ends where `of` ends."""

    of: Answer
    every: float = 0.005
    size: int = 1
    head: bool = False

    @override
    async def answer(self, connection: Connection, asked: Received) -> bool:
        head, pieces = self.of.written(asked)
        body = b"".join(pieces)
        if self.head:
            head, body = b"", head + body
        await connection.send(head)
        for start in range(0, len(body), self.size):
            await connection.send(body[start : start + self.size])
            await asyncio.sleep(self.every)
        return self.of.keeps


@dataclass(frozen=True)
class Endless(AtRequest):
    """An answer of this status whose body never ends: `piece` every `every` seconds."""

    status: int = 200
    piece: bytes = b" "
    every: float = 0.005

    @override
    async def answer(self, connection: Connection, asked: Received) -> bool:
        headers = {"Content-Type": JSON, "Transfer-Encoding": "chunked"}
        await connection.send(_head(self.status, headers))
        while True:
            await connection.send(chunk(self.piece))
            await asyncio.sleep(self.every)


@dataclass(frozen=True)
class _Cut(AtRequest):
    """An answer that stops. `head`: after so many bytes of its head; `body`: after the head and so
    many bytes of the body; `words`: in a stream after so many events that say something, 0 is
    after its opening. Without them: before anything."""

    of: Answer = Good()
    head: int | None = None
    body: int | None = None
    words: int | None = None

    @override
    async def answer(self, connection: Connection, asked: Received) -> bool:
        if part := self._part(asked, *self.of.written(asked)):
            await connection.send(part)
        await self.stop(connection)
        return False

    def _part(self, asked: Received, head: bytes, body: tuple[bytes, ...]) -> bytes:
        if self.words is not None:
            return head + b"".join(body[: len(vendor_of(asked).opening()) + self.words])
        if self.body is not None:
            return head + b"".join(body)[: self.body]
        return head[: self.head or 0]

    @abc.abstractmethod
    async def stop(self, connection: Connection) -> None:
        """How."""


class Close(_Cut):
    """The connection is closed."""

    @override
    async def stop(self, connection: Connection) -> None:
        """Returning closes it."""


class Reset(_Cut):
    """The connection is reset, once what was written has left."""

    @override
    async def stop(self, connection: Connection) -> None:
        connection.reset()


class Hang(_Cut):
    """Nothing more comes, and the connection stays."""

    @override
    async def stop(self, connection: Connection) -> None:
        await connection.gone()


class HalfClose(_Cut):
    """FIN comes, but the provider goes on reading."""

    @override
    async def stop(self, connection: Connection) -> None:
        await connection.finish()
        await connection.gone()


# ---- the provider


class Faulty(Upstream):
    """The provider. `heads` are the requests whose head came, `received` those that came whole;
    `connections` counts what was accepted."""

    def __init__(
        self, *script: Step, tls: ssl.SSLContext | None = None, scheme: str = "http"
    ) -> None:
        """With `tls` it speaks TLS. `scheme` is that of `origin`."""
        super().__init__(self._play, tls)
        self._scheme = scheme
        self._listening: contextlib.AsyncExitStack | None = None
        self._set_script(script)

    @override
    async def __aenter__(self) -> Self:
        self._holder = _bound(0)
        self.port = self._holder.getsockname()[1]
        await self._listen()
        return self

    @override
    async def __aexit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        await self._stop_listening()
        self._holder.close()
        await self._end_scripts(kind is None)

    @property
    def origin(self) -> str:
        """Without a path a target gets its provider's own, which says whose format is spoken."""
        host = "127.0.0.1" if self._scheme == "http" else "localhost"
        return f"{self._scheme}://{host}:{self.port}"

    async def become(self, *script: Step) -> None:
        """Forget everything, end what is under way, and follow another script."""
        await self._end_scripts(failing=True)
        self.heads.clear()
        self.received.clear()
        self.connections = 0
        before = self._state()
        self._set_script(script)
        if self._state() is not before:
            await self._listen()

    def _set_script(self, script: tuple[Step, ...]) -> None:
        never = any(isinstance(each, NeverReached) for each in script)
        assert len(script) == 1 or (script and not never), "Refuse and Unanswered stand alone"
        self.script = script
        self._steps = list(script)

    async def _end_scripts(self, failing: bool) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception) and failing:
                raise result

    # ---- listening

    def _state(self) -> type[Step] | None:
        """What the port is, where nobody accepts connections."""
        first = self._steps[0]
        return type(first) if isinstance(first, NeverReached) else None

    async def _listen(self) -> None:
        """As the first step wants it."""
        await self._stop_listening()
        self._listening = contextlib.AsyncExitStack()
        if self._state() is Unanswered:
            await self._listening.enter_async_context(_deaf(self.port))
        elif self._state() is None:
            server = await asyncio.start_server(
                self._connected, sock=_listener(self.port), ssl=self._tls, limit=1 << 20
            )
            self._listening.callback(server.close)

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            await self._listening.aclose()
            self._listening = None

    # ---- the script

    def _take(self) -> Step:
        return self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]

    async def _play(self, connection: Connection) -> None:
        if isinstance(self._steps[0], AtConnect):
            await self._meet(connection, self._take())
            return
        keeps = True
        while keeps:
            asked = await connection.request()
            step = self._take()
            if not isinstance(step, AtRequest):
                await self._meet(connection, step)
                return
            keeps = await step.answer(connection, asked)

    @staticmethod
    async def _meet(connection: Connection, step: Step) -> None:
        assert isinstance(step, AtConnect)
        await step.meet(connection)


def _bound(port: int) -> socket.socket:
    """A socket that holds the port without listening; others that listen may have it too."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _listener(port: int) -> socket.socket:
    sock = _bound(port)
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def _deaf(port: int) -> AsyncIterator[None]:
    """A listener that accepts nobody and whose queue, of one, is full: the kernel drops what asks
    for a connection."""
    with _bound(port) as listener, socket.socket() as queued:
        listener.listen(0)
        queued.setblocking(False)
        await asyncio.get_running_loop().sock_connect(queued, ("127.0.0.1", port))
        yield
