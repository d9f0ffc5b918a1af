"""multipart/form-data piece by piece (RFC 7578, RFC 2046 section 5.1), for uploads of any size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Final

from kong_ai_proxy.gateway.provider.http import ApiError

_MOST_HEADERS: Final = 16 * 1024
_MOST_PREAMBLE: Final = 64 * 1024
_MOST_PADDING: Final = 1000
_PARAMETER = re.compile(r';\s*([A-Za-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_HINT: Final = (
    "(HINT: let your HTTP library write the body and its Content-Type header, which names the "
    "boundary)"
)


@dataclass(frozen=True)
class Part:
    """The head of a part; `filename` None is a text field."""

    name: str
    filename: str | None
    content_type: str


class End:
    """The end of a part."""


END: Final = End()
Event = Part | bytes | End  # a part's head, pieces of its content, its end


def malformed(why: str) -> ApiError:
    """The answer to a body that is no multipart/form-data."""
    return ApiError(400, f"Could not parse multipart form: {why} {_HINT}.")


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type header names. Raises ApiError 400."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= 70:  # RFC 2046 section 5.1.1
        raise malformed(f"no boundary in the Content-Type header '{content_type}'")
    return boundary.encode("utf-8", "surrogateescape")


class Parser:
    """Reads a body fed in pieces of any size. Its memory does not grow with the body."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first boundary looks like the others
        self._step = self._preamble
        self._passed = 0
        self._closed = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """What the piece completes. Raises ApiError 400."""
        self._buffer += chunk
        more = True
        while more:
            before = self._step
            event = self._step()
            if event is not None:
                yield event
            more = event is not None or self._step != before

    def end(self) -> None:
        """The body has ended. Raises ApiError 400 when it ended too early."""
        if not self._closed:
            raise malformed("the body ends before the closing boundary")

    def _preamble(self) -> Event | None:
        found = self._buffer.find(self._delimiter)
        if found >= 0:
            self._cut(found + len(self._delimiter))
            self._step = self._after_boundary
            return None
        self._passed += self._cut(max(0, len(self._buffer) - len(self._delimiter) + 1))
        if self._passed > _MOST_PREAMBLE:
            raise malformed("its boundary does not occur in the body")
        return None

    def _after_boundary(self) -> Event | None:
        if self._buffer.startswith(b"--"):
            self._closed = True
            self._step = self._epilogue
            return None
        end = self._buffer.find(b"\r\n")
        padding = self._buffer[:end] if end >= 0 else self._buffer.rstrip(b"\r-")
        if padding.strip(b" \t") or len(padding) > _MOST_PADDING:
            raise malformed("expected CRLF after a boundary")
        if end >= 0:
            self._cut(end)  # the line end stays: it ends an empty head too
            self._step = self._head
        return None

    def _head(self) -> Event | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end > _MOST_HEADERS or (end < 0 and len(self._buffer) > _MOST_HEADERS):
            raise malformed(f"the head of a part is longer than {_MOST_HEADERS} bytes")
        if end < 0:
            return None
        part = _part(bytes(self._buffer[:end]))
        self._cut(end + 2)  # content may be empty: its line end is the boundary's
        self._step = self._content_start
        return part

    def _content_start(self) -> Event | None:
        """Nothing between head and boundary, or the content's first byte."""
        if len(self._buffer) < len(self._delimiter):
            return None
        if not self._buffer.startswith(self._delimiter):
            self._cut(2)
        self._step = self._content
        return None

    def _content(self) -> Event | None:
        found = self._buffer.find(self._delimiter)
        if found == 0:
            self._cut(len(self._delimiter))
            self._step = self._after_boundary
            return END
        sure = found if found > 0 else len(self._buffer) - len(self._delimiter) + 1
        if sure <= 0:
            return None
        piece = bytes(self._buffer[:sure])
        self._cut(sure)
        return piece

    def _epilogue(self) -> Event | None:
        self._buffer.clear()
        return None

    def _cut(self, size: int) -> int:
        del self._buffer[:size]
        return size


def _part(head: bytes) -> Part:
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise malformed("a line in the head of a part has no colon")
        headers[name.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    found = {
        match[1].lower(): re.sub(
            r'\\(["\\])', r"\1", match[2] if match[2] is not None else match[3]
        )
        for match in _PARAMETER.finditer(disposition)
    }
    if not disposition.lower().startswith("form-data") or not found.get("name"):
        raise malformed("a part without 'Content-Disposition: form-data; name=...'")
    return Part(found["name"], found.get("filename"), headers.get("content-type", "text/plain"))
