"""Content codings: what a client accepts, and answers decoded piece by piece.

RFC 9110 section 8.4.1 (gzip, x-gzip, deflate) and 12.5.3 (Accept-Encoding); br is RFC 7932.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import brotli

MAX_PIECE = 64 << 10
"""The longest piece that a decoder gives, in bytes."""
MAX_CODINGS = 4
"""More codings on each other than anybody sends; each can multiply a body a thousandfold."""

_INPUT = 16 << 10
_GZIP_MAGIC = b"\x1f"
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class UnknownCoding(ValueError):  # noqa: N818
    """The content coding is none that can be decoded here."""


class CodingError(ValueError):
    """The body is not what its content coding says, or it was cut short."""


def accepts(accept_encoding: str | None, coding: str) -> bool:
    """Whether a client that sent this Accept-Encoding can be sent `coding`; `identity` is asked
    for like a coding.

    Without the field any coding would be allowed (RFC 9110 section 12.5.3), but clients that do
    not send it mostly cannot decode, and identity is always allowed too: so only that is.
    Elements that are not understood are passed over.
    """
    weights: dict[str, bool] = {}
    for element in (accept_encoding or "").split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = _weight(parameters)
        if name and weight is not None:
            weights.setdefault(_canonical(name), weight)
    coding = _canonical(coding.strip().lower())
    if coding == "identity":
        return weights.get(coding, weights.get("*", True))
    return weights.get(coding, weights.get("*", False))


def _weight(parameters: list[str]) -> bool | None:
    """Whether the q value is above zero; None for one that nobody can read."""
    if not parameters:
        return True
    name, _, value = parameters[0].partition("=")
    if len(parameters) > 1 or name != "q" or not _QUALITY.fullmatch(value):
        return None
    return float(value) > 0


def _canonical(coding: str) -> str:
    return "gzip" if coding == "x-gzip" else coding


def decoder(content_encoding: str | None) -> Decoder | None:
    """A decoder for one body with this Content-Encoding; None where nothing is to be decoded.

    Raises UnknownCoding. Several codings are listed in the order in which they were applied.
    """
    codings = [name.strip().lower() for name in (content_encoding or "").split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if len(codings) > MAX_CODINGS:
        raise UnknownCoding(f"content-encoding: expected at most {MAX_CODINGS} codings")
    for name in codings:
        if name not in _STAGES:
            raise UnknownCoding(f"content-encoding: expected gzip, deflate or br, got {name!r}")
    return Decoder([_STAGES[name]() for name in reversed(codings)]) if codings else None


class Decoder:
    """Decodes one body in constant memory.

    Both methods return iterators that decode while they are asked, in pieces of at most MAX_PIECE
    bytes. A bomb costs nothing until it is asked for, and who has had enough drops the iterator.
    What is left of one comes first out of the next. Beside the chunks that were fed, some hundred
    kB are held.
    """

    def __init__(self, stages: list[_Stage]) -> None:
        self._stages = stages
        self._fed: deque[memoryview] = deque()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` decodes to. The iterator raises CodingError for garbage."""
        if chunk:
            self._fed.append(memoryview(chunk))
        return self._pieces()

    def end(self) -> Iterator[bytes]:
        """What is left. The iterator raises CodingError for a body that is cut short; one without
        any byte at all is whole, as the answer to a HEAD request is."""
        yield from self._pieces()
        for stage in self._stages:
            stage.finish()

    def _pieces(self) -> Iterator[bytes]:
        while piece := self._pull(len(self._stages) - 1):
            yield piece

    def _pull(self, number: int) -> bytes:
        """Output of a stage, or of the body itself for -1; b"" when more has to be fed first."""
        if number < 0:
            return self._input()
        stage = self._stages[number]
        while not (piece := stage.pull()):
            data = self._pull(number - 1)
            if not data:
                return b""
            stage.push(data)
        return piece

    def _input(self) -> bytes:
        """The next little of what was fed: zlib copies its input with each piece it gives."""
        if not self._fed:
            return b""
        first = self._fed.popleft()
        if len(first) > _INPUT:
            self._fed.appendleft(first[_INPUT:])
        return bytes(first[:_INPUT])


class _Stage(Protocol):
    """One coding."""

    def push(self, data: bytes) -> None:
        """Take more input; only after `pull` gave nothing."""

    def pull(self) -> bytes:
        """At most MAX_PIECE bytes of output; b"" when more input is needed."""

    def finish(self) -> None:
        """Raise CodingError unless the input may end here."""


class _Gzip:
    """RFC 1952: one member or several, the last one perhaps padded with zeros."""

    def __init__(self) -> None:
        self._input = b""
        self._member: zlib._Decompress | None = None
        self._started = False

    def push(self, data: bytes) -> None:
        self._input = data

    def pull(self) -> bytes:
        while self._in_member():
            assert self._member is not None
            piece, self._input = _inflate("gzip", self._member, self._input)
            if self._member.eof:
                self._member = None
            if piece:
                return piece
            if not self._input:
                break
        return b""

    def finish(self) -> None:
        if self._member is not None:
            raise CodingError("gzip: the body is cut short")

    def _in_member(self) -> bool:
        if self._member is not None:
            return True
        if self._started:
            self._input = self._input.lstrip(b"\0")
        if not self._input:
            return False
        if not self._input.startswith(_GZIP_MAGIC):
            what = "after the end" if self._started else "instead of a gzip header"
            raise CodingError(f"gzip: unexpected bytes {what}")
        self._started = True
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return True


class _Deflate:
    """RFC 1950, as it should be, or bare RFC 1951, which some send under the same name."""

    def __init__(self) -> None:
        self._input = b""
        self._inflater: zlib._Decompress | None = None

    def push(self, data: bytes) -> None:
        if self._inflater is None:
            # The low half of zlib's first byte is 8, which no bare block begins with: it would be
            # a stored one with padding that is not zero.
            bare = data[0] & 0x0F != 8
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
        self._input = data

    def pull(self) -> bytes:
        if self._inflater is None:
            return b""
        if self._inflater.eof:
            if self._input:
                raise CodingError("deflate: unexpected bytes after the end")
            return b""
        piece, self._input = _inflate("deflate", self._inflater, self._input)
        return piece or (self.pull() if self._input else b"")

    def finish(self) -> None:
        if self._inflater is not None and not self._inflater.eof:
            raise CodingError("deflate: the body is cut short")


def _inflate(name: str, inflater: zlib._Decompress, data: bytes) -> tuple[bytes, bytes]:
    """A piece of output, and the input that is left."""
    try:
        piece = inflater.decompress(data, MAX_PIECE)
    except zlib.error as error:
        raise CodingError(f"{name}: {error}") from None
    return piece, inflater.unused_data if inflater.eof else inflater.unconsumed_tail


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._inflater = brotli.Decompressor()
        self._input = b""
        self._output = memoryview(b"")
        self._started = False

    def push(self, data: bytes) -> None:
        self._started = True
        self._input = data

    def pull(self) -> bytes:
        if not self._output:
            self._output = memoryview(self._process())
        piece, self._output = self._output[:MAX_PIECE], self._output[MAX_PIECE:]
        return bytes(piece)

    def _process(self) -> bytes:
        if self._is_finished():
            if self._input:
                raise CodingError("br: unexpected bytes after the end")
            return b""
        # It stops somewhat above the limit, and says that it can take more while it still has
        # output to give: only an empty answer means that it has none.
        try:
            output: bytes = self._inflater.process(self._input, output_buffer_limit=MAX_PIECE // 2)
        except brotli.error as error:
            raise CodingError(str(error)) from None
        self._input = b""
        return output

    def finish(self) -> None:
        if self._started and not self._is_finished():
            raise CodingError("br: the body is cut short")

    def _is_finished(self) -> bool:
        try:
            return bool(self._inflater.is_finished())
        except brotli.error as error:  # after it failed
            raise CodingError(str(error)) from None


_STAGES: dict[str, type[_Gzip | _Deflate | _Brotli]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
}
