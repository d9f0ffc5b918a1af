"""A stand-in for one provider's API: a server that records, checks and answers as scripted."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, unquote

import brotli
import orjson
from aiohttp import web
from multidict import CIMultiDictProxy
from typing_extensions import override

Json = dict[str, Any]
Finish = Literal["stop", "length", "tool_calls", "content_filter"]
Routes = Sequence[tuple[tuple[str, re.Pattern[str]], str]]  # route() and the method's name
Encoding = Literal["identity", "gzip", "deflate", "br"]

_MAX_BODY = 256 * 2**20
_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for. Without `id` the stand-in makes one in the vendor's form."""

    name: str
    arguments: Json = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts of an answer. `cached` is a part of `input`, `reasoning` a part of `output`."""

    input: int = 11
    output: int = 7
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Turn:
    """What the provider answers to one request, and how the bytes leave.

    The model's part:
        text: what it says; by default a greeting, or nothing beside tool calls.
        tool_calls: the calls it asks for, all in one turn.
        thinking: reasoning before the text. Only providers that have it show it.
        finish: why it stopped; by default `tool_calls` with tool calls, else `stop`.
            `content_filter` is the vendor's own refusal (Anthropic's `refusal`, Gemini's `SAFETY`).
        usage: token counts.
    Failures:
        status: 400 or more answers with the vendor's error body, carrying `message`.
        stream_error: an error inside a 200 stream: the message. It replaces everything after the
            first `error_after` frames; one-shot answers ignore it.
        body: these bytes instead of the vendor's body (HTML, nothing, half a document).
    The wire:
        headers: added to the answer's, or put in the place of one (`Content-Type`).
        encoding: Content-Encoding, whatever the client accepts.
        piece: bytes written at a time; by default a frame, or the whole one-shot body.
        delay: seconds between pieces.
        cut: bytes after which the connection is broken off.
        hold: an event awaited after `hold_after` pieces, for tests that must see a request under
            way; the head has left by then, unless `hold_after` is 0: then nothing has.
    """

    text: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    thinking: str = ""
    finish: Finish | None = None
    usage: Usage = Usage()
    status: int = 200
    message: str = "the stand-in was told to fail"
    stream_error: str | None = None
    error_after: int = 0
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    encoding: Encoding = "identity"
    piece: int | None = None
    delay: float = 0.0
    cut: int | None = None
    hold: asyncio.Event | None = None
    hold_after: int = 1

    @property
    def said(self) -> str:
        """The text of the answer, which may be empty."""
        if self.text is not None:
            return self.text
        return "" if self.tool_calls else "Hello from the stand-in."

    @property
    def reason(self) -> Finish:
        """Why the model stopped."""
        return self.finish or ("tool_calls" if self.tool_calls else "stop")


@dataclass(frozen=True)
class Recorded:
    """One request as the provider saw it. `path` is still percent-encoded; `query` has no `?`."""

    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed. Raises ValueError where it is not JSON."""
        return orjson.loads(self.body)

    @property
    def params(self) -> dict[str, str]:
        """The query, decoded."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


class RefusedError(Exception):
    """The request breaks a rule of the API. The client gets `status` and the vendor's body."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Reply:
    """An answer before it is cut into pieces: a body, or the frames of a stream."""

    body: bytes = b""
    frames: Sequence[bytes] | None = None
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error_frame: Callable[[str], bytes] | None = None


def route(method: str, pattern: str) -> tuple[str, re.Pattern[str]]:
    """A route: `{name}` in the pattern stands for one path segment, given decoded. `method` may be
    several, such as GET|DELETE."""
    return method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern) + r"\Z")


class Upstream(abc.ABC):
    """A provider on a free port of 127.0.0.1, from `async with` on.

    url: its address, without a path.
    requests: what it received, oldest first.
    failures: why requests were refused, or what broke in the stand-in itself. A test that expects
        none ends with `assert upstream.failures == []`.
    disconnects: how many clients left before their answer was complete.
    """

    name: ClassVar[str]
    ROUTES: ClassVar[Routes]

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Recorded] = []
        self.failures: list[str] = []
        self.disconnects = 0
        self._turns: list[Turn] = [Turn()]
        self._changed = asyncio.Condition()

    def script(self, *turns: Turn, **one: Any) -> None:
        """Choose the answers to come: Turns, one for each request, the last of them kept for all
        later ones; or the members of a single Turn."""
        if bool(turns) == bool(one):
            raise TypeError("script() takes Turns, or the members of one Turn")
        self._turns = list(turns) or [Turn(**one)]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def wait_for(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Until `condition` holds, looked at whenever a request arrives or a client leaves.
        Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    # ---- what a provider is

    @abc.abstractmethod
    def authorize(self, request: Recorded) -> None:
        """Raises RefusedError with 401 or 403."""

    @abc.abstractmethod
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """The vendor's error body."""

    # ---- serving

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        seen = Recorded(request.method, path, query, request.headers, await request.read())
        self.requests.append(seen)
        await self._tell()
        turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
        reply = self._reply(seen, turn)
        try:
            return await _deliver(request, turn, reply)
        except (asyncio.CancelledError, ConnectionError):
            self.disconnects += 1
            await self._tell()
            raise

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _reply(self, seen: Recorded, turn: Turn) -> Reply:
        try:
            reply = self._answer(seen, turn)
        except RefusedError as refused:
            self.failures.append(f"{seen.method} {seen.path}: {refused.message}")
            return self.error(seen, refused.status, refused.message)
        except Exception as broken:
            self.failures.append(f"{seen.method} {seen.path}: stand-in broke: {broken!r}")
            return self.error(seen, 500, f"the stand-in broke: {broken!r}")
        if turn.body is not None:
            return replace(reply, body=turn.body, frames=None)
        if reply.frames is not None and turn.stream_error is not None:
            assert reply.error_frame, f"{self.name} has no errors in streams"
            frames = [*reply.frames[: turn.error_after], reply.error_frame(turn.stream_error)]
            return replace(reply, frames=frames)
        return reply

    def _answer(self, seen: Recorded, turn: Turn) -> Reply:
        """Requests are checked before a scripted error answers them. Raises RefusedError."""
        for (method, pattern), handler in self.ROUTES:
            if found := pattern.match(seen.path):
                if seen.method not in method.split("|"):
                    raise RefusedError(
                        f"method {seen.method} is not allowed here, use {method}", 405
                    )
                self.authorize(seen)
                names = {name: unquote(value) for name, value in found.groupdict().items()}
                reply: Reply = getattr(self, handler)(seen, turn, **names)
                if turn.status >= 400:
                    return self.error(seen, turn.status, turn.message)
                return reply
        raise RefusedError(f"unknown path {seen.path}", 404)


def words(text: str, least: int = 1) -> list[str]:
    """The text in pieces, a word each, as models stream it; at least `least`, empty if need be."""
    pieces = _WORD.findall(text)
    return pieces or [""] * least


def json_pieces(value: Json) -> list[str]:
    """JSON text in pieces that break names and values in two."""
    text = orjson.dumps(value).decode()
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON body."""
    return Reply(orjson.dumps(value), status=status)


def sse(data: object, event: str | None = None) -> bytes:
    """One event; a str is sent as it is, all else as JSON."""
    payload = data.encode() if isinstance(data, str) else orjson.dumps(data)
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + payload + b"\n\n"


def vector(text: str, size: int) -> list[float]:
    """A vector that depends on the text, the same on every run."""
    seed = zlib.crc32(text.encode())
    return [((seed * (n + 1)) % 2003 - 1001) / 1001 for n in range(size)]


def require_bearer(request: Recorded, message: str = "missing Authorization: Bearer key") -> None:
    """Raises RefusedError 401 unless an Authorization header carries a bearer key."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise RefusedError(message, 401)


# ---- bytes


class _Encoder(abc.ABC):
    """A Content-Encoding; each frame can be decoded when it has arrived, as servers flush."""

    @abc.abstractmethod
    def encode(self, data: bytes) -> bytes: ...

    @abc.abstractmethod
    def end(self) -> bytes: ...


class _Zlib(_Encoder):
    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.compressobj(wbits=wbits)

    @override
    def encode(self, data: bytes) -> bytes:
        return self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)

    @override
    def end(self) -> bytes:
        return self._zlib.flush()


class _Brotli(_Encoder):
    def __init__(self) -> None:
        self._brotli = brotli.Compressor()

    @override
    def encode(self, data: bytes) -> bytes:
        return bytes(self._brotli.process(data) + self._brotli.flush())

    @override
    def end(self) -> bytes:
        return bytes(self._brotli.finish())


def encoder(encoding: Encoding) -> _Encoder | None:
    """What encodes a body, or None for identity."""
    if encoding == "br":
        return _Brotli()
    return None if encoding == "identity" else _Zlib(31 if encoding == "gzip" else 15)


def _encoded(frames: Iterable[bytes], encoding: Encoding) -> list[bytes]:
    by = encoder(encoding)
    return list(frames) if by is None else [*(by.encode(frame) for frame in frames), by.end()]


def _pieces(frames: Sequence[bytes], turn: Turn) -> list[bytes]:
    """The body's bytes as they are written, up to where it is cut."""
    encoded = _encoded(frames, turn.encoding)
    if turn.piece is None and turn.cut is None:
        return [frame for frame in encoded if frame]
    whole = b"".join(encoded)[: turn.cut]
    size = turn.piece or len(whole) or 1
    return [whole[at : at + size] for at in range(0, len(whole), size)]


async def _deliver(request: web.Request, turn: Turn, reply: Reply) -> web.StreamResponse:
    pieces = _pieces([reply.body] if reply.frames is None else reply.frames, turn)
    response = web.StreamResponse(status=reply.status)
    response.headers.update({"Content-Type": reply.content_type, **reply.headers, **turn.headers})
    if turn.encoding != "identity":
        response.headers["Content-Encoding"] = turn.encoding
    if reply.frames is None:
        whole = _encoded([reply.body], turn.encoding)
        response.content_length = sum(map(len, whole))  # of what is cut off, too
    if turn.hold and turn.hold_after == 0:
        await turn.hold.wait()
    await response.prepare(request)
    for number, piece in enumerate(pieces):
        if turn.hold and number == turn.hold_after:
            await turn.hold.wait()
        if turn.delay and number:
            await asyncio.sleep(turn.delay)
        await response.write(piece)
    if turn.cut is not None:
        with contextlib.suppress(AttributeError):  # no transport: the client was faster
            request.transport.close()  # type: ignore[union-attr]
        return response
    await response.write_eof()
    return response
