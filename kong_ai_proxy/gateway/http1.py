"""HTTP/1.1 messages as bytes, both ways, as nginx reads and writes them.

Header names and values keep their bytes, their order and their letter case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kong_ai_proxy.gateway.stream import Stream

RawHeaders = list[tuple[bytes, bytes]]

HEAD_LIMIT = 32 * 1024  # nginx: large_client_header_buffers 4 8k
LINE_LIMIT = 8 * 1024
_CHUNK_LINE_LIMIT = 1024
_TRAILER_LIMIT = 8 * 1024

_REQUEST_LINE = re.compile(rb"([A-Z_\-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n\x00]*))?")
_SENDABLE_NAME = re.compile(rb"[A-Za-z0-9_\-]+")
_LINE_BREAKS = re.compile(rb"[\r\n\x00]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?")
_BROKEN_ESCAPE = re.compile(rb"%(?:00|(?![0-9A-Fa-f]{2}))")
_BROKEN_VALUE = re.compile(rb"[\x00\r]")


class BadMessage(ValueError):  # noqa: N818 - what HTTP calls it
    """A message that is not HTTP/1.1, with the status that nginx answers to one from a client."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class RequestHead:
    method: str
    target: bytes  # path and query as sent; absolute forms are reduced to these
    version: float
    headers: RawHeaders


@dataclass(slots=True)
class ResponseHead:
    status: int
    reason: bytes
    version: float
    headers: RawHeaders


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of a header, in order; `name` in small letters."""
    return [value for key, value in headers if key.lower() == name]


def tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> set[bytes]:
    """The comma-separated words of a header, in small letters."""
    joined = b",".join(values(headers, name))
    return {word.strip().lower() for word in joined.split(b",")} - {b""}


async def read_head(stream: Stream) -> bytes:
    """The bytes of one message's head without its empty line; b"" when the peer has closed.

    Empty lines before it are skipped. Raises BadMessage when it is too long, EOFError when it is
    cut off.
    """
    try:
        line = b"\r\n"
        while line in (b"\r\n", b"\n"):
            line = await stream.read_until(b"\n", LINE_LIMIT)
    except OverflowError as error:
        raise BadMessage("request line too long", 414) from error
    except EOFError as error:
        if not error.args[0].strip():
            return b""
        raise
    return line + await _rest_of_head(stream, HEAD_LIMIT - len(line))


async def _rest_of_head(stream: Stream, limit: int) -> bytes:
    rest = bytearray()
    while True:
        try:
            line = await stream.read_until(b"\n", min(LINE_LIMIT, limit - len(rest)))
        except OverflowError as error:
            raise BadMessage("header too long", 494) from error
        if line in (b"\r\n", b"\n"):
            return bytes(rest)
        rest += line


def parse_request(head: bytes) -> RequestHead:
    """Raises BadMessage."""
    first, lines = _lines(head)
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        if re.fullmatch(rb"[A-Z_\-]+ [^ ]+ HTTP/[2-9](?:\.[0-9])?", first):
            raise BadMessage("HTTP version not supported", 505)
        raise BadMessage("invalid request line")
    headers = [header for line in lines if (header := _request_header(line)) is not None]
    request = RequestHead(match[1].decode(), match[2], 1 + int(match[3]) / 10, headers)
    _settle_target(request)
    hosts = values(request.headers, b"host")
    if len(hosts) > 1 or not all(hosts) or (request.version >= 1.1 and not hosts):
        raise BadMessage("not exactly one Host header")
    if request.method == "TRACE":
        raise BadMessage("method not allowed", 405)
    return request


def parse_response(head: bytes) -> ResponseHead:
    """Raises BadMessage."""
    first, lines = _lines(head)
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise BadMessage("invalid status line")
    return ResponseHead(
        int(match[2]), match[3] or b"", 1 + int(match[1]) / 10, [_header(line) for line in lines]
    )


def _lines(head: bytes) -> tuple[bytes, list[bytes]]:
    lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    if lines and not lines[-1]:
        lines.pop()
    return lines[0], lines[1:]


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or re.search(rb"[\x00-\x20\x7f]", name):
        raise BadMessage("invalid header line")
    if _BROKEN_VALUE.search(value):
        raise BadMessage("invalid header value")
    return name, value.strip(b" \t")


def _request_header(line: bytes) -> tuple[bytes, bytes] | None:
    """A header of a request; None for a name that nginx ignores (ignore_invalid_headers)."""
    name, value = _header(line)
    return (name, value) if _SENDABLE_NAME.fullmatch(name) else None


def _settle_target(request: RequestHead) -> None:
    """Reduce an absolute target to path and query; its host replaces the Host header."""
    target = request.target
    if not target.startswith(b"/"):
        match = re.fullmatch(rb"https?://([^/?#]+)(.*)", target, re.IGNORECASE)
        if match is None:
            raise BadMessage("invalid request target", 405 if request.method == "CONNECT" else 400)
        request.target = match[2] if match[2].startswith(b"/") else b"/" + match[2]
        request.headers = [item for item in request.headers if item[0].lower() != b"host"]
        request.headers.insert(0, (b"Host", match[1]))
    if _BROKEN_ESCAPE.search(request.target.partition(b"?")[0]):
        raise BadMessage("invalid percent-encoding in the path")


@dataclass(frozen=True, slots=True)
class Framing:
    """How long a body is: `length` bytes, in chunks, or (neither) to the end of the connection."""

    length: int | None = None
    chunked: bool = False

    @property
    def empty(self) -> bool:
        return self.length == 0


NO_BODY = Framing(length=0)


def request_framing(head: RequestHead) -> Framing:
    """Raises BadMessage where two readers could disagree about the body's length."""
    encodings = values(head.headers, b"transfer-encoding")
    length = _content_length(head.headers)
    if not encodings:
        return Framing(length=length or 0)
    if length is not None or head.version < 1.1 or len(encodings) > 1:
        raise BadMessage("ambiguous body length")
    if encodings[0].lower() != b"chunked":
        raise BadMessage("unknown transfer encoding", 501)
    return Framing(chunked=True)


def response_framing(head: ResponseHead, method: str) -> Framing:
    """Raises BadMessage where two readers could disagree about the body's length."""
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return NO_BODY
    encodings = tokens(head.headers, b"transfer-encoding")
    length = _content_length(head.headers)
    if not encodings:
        return Framing(length=length)
    if encodings != {b"chunked"} or length is not None:
        raise BadMessage("ambiguous body length")
    return Framing(chunked=True)


def _content_length(headers: RawHeaders) -> int | None:
    found = values(headers, b"content-length")
    if not found:
        return None
    if len(found) > 1 or not re.fullmatch(rb"[0-9]{1,18}", found[0]):
        raise BadMessage("invalid Content-Length")
    return int(found[0])


class BodyReader:
    """The body of one message, piece by piece as it arrives. Trailers are dropped."""

    def __init__(self, stream: Stream, framing: Framing) -> None:
        self.framing = framing
        self.complete = framing.empty
        self._stream = stream
        self._left = framing.length or 0  # of the body, or of the chunk

    async def read(self) -> bytes:
        """The next piece; b"" when the body is complete.

        Raises EOFError when the connection ends before that, BadMessage for broken chunks.
        """
        if self.complete:
            return b""
        if self.framing.chunked:
            return await self._read_chunked()
        if self.framing.length is None:
            data = await self._stream.read()
            self.complete = not data
            return data
        data = await self._read_left()
        self.complete = self._left == 0
        return data

    async def _read_left(self) -> bytes:
        data = await self._stream.read(min(self._left, 64 * 1024))
        if not data:
            raise EOFError("the connection ended inside a body")
        self._left -= len(data)
        return data

    async def _read_chunked(self) -> bytes:
        if self._left == 0:
            self._left = await self._chunk_size()
            if self._left == 0:
                await self._skip_trailers()
                self.complete = True
                return b""
        data = await self._read_left()
        if self._left == 0 and await self._line() != b"":
            raise BadMessage("a chunk is longer than it says")
        return data

    async def _chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(await self._line())
        if match is None:
            raise BadMessage("invalid chunk size")
        return int(match[1], 16)

    async def _skip_trailers(self) -> None:
        seen = 0
        while line := await self._line():
            seen += len(line)
            if seen > _TRAILER_LIMIT:
                raise BadMessage("trailers too long")

    async def _line(self) -> bytes:
        try:
            line = await self._stream.read_until(b"\n", _CHUNK_LINE_LIMIT)
        except OverflowError as error:
            raise BadMessage("invalid chunk") from error
        return line.removesuffix(b"\n").removesuffix(b"\r")


def chunk(data: bytes) -> bytes:
    """A piece of a body in chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def render_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines and the empty line behind them; line breaks inside become spaces."""
    lines = [_LINE_BREAKS.sub(b" ", name + b": " + value) + b"\r\n" for name, value in headers]
    return b"".join(lines) + b"\r\n"
