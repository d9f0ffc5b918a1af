"""As much of HTTP/1.1 as the two ends of the benchmark need."""

from __future__ import annotations

import re

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)
HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def length(head: bytes) -> int | None:
    """How many bytes follow the head; None: as many as the chunks say."""
    if CHUNKED.search(head):
        return None
    found = LENGTH.search(head)
    return int(found[1]) if found else 0


class Body:
    """The content of a body, as it arrives. Extensions of chunks and trailers are not expected."""

    def __init__(self, head: bytes) -> None:
        expected = length(head)
        self._chunked = expected is None
        self._left = expected or 0
        self._rest = b""
        self._is_last = False
        self.done = expected == 0

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of content in `data`."""
        if self._chunked:
            return list(self._dechunked(data))
        self._left -= len(data)
        self.done = self._left <= 0
        return [data]

    def _dechunked(self, data: bytes) -> list[bytes]:
        data, self._rest, at, pieces = self._rest + data, b"", 0, []
        while at < len(data):
            if self._left > 2:  # in a chunk; its CRLF is counted with it
                piece = data[at : at + self._left - 2]
                pieces.append(piece)
                at, self._left = at + len(piece), self._left - len(piece)
            elif self._left:
                step = min(self._left, len(data) - at)
                at, self._left = at + step, self._left - step
                self.done = self._is_last and not self._left
            else:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._rest = data[at:]
                    break
                size = int(data[at:end], 16)
                self._is_last = size == 0
                at, self._left = end + 2, size + 2
        return pieces
