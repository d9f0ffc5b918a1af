"""Bytes on disk that nobody else sees: uploads and what is made from them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from typing import Final

from aiohttp import web

PIECE: Final = 256 * 1024


class Blob:
    """A file without a name. Written once, then read from any place."""

    def __init__(self, data: bytes = b"") -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by its owner
        self.size = 0
        self.write(data)

    def write(self, data: bytes) -> None:
        """Append. Raises OSError, as when the disk is full."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(data)

    def read(self, at: int = 0, count: int | None = None) -> bytes:
        """Up to `count` bytes from `at` on; all that is left without a count."""
        return os.pread(self._file.fileno(), self.size - at if count is None else count, at)

    def pieces(self) -> Generator[bytes, None, None]:
        """All of it, piece by piece. It may be closed meanwhile: the pieces go on."""
        own = os.dup(self._file.fileno())
        try:
            for at in range(0, self.size, PIECE):
                yield os.pread(own, PIECE, at)
        finally:
            os.close(own)

    def lines(self, longest: int) -> Iterator[bytes]:
        """Its lines without their ends. Raises ValueError for one over `longest` bytes."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > longest:
                raise ValueError(f"a line is longer than {longest} bytes")
            yield from whole
        if rest:
            yield rest

    def close(self) -> None:
        """Give its space back."""
        self._file.close()


async def send_blob(
    request: web.Request, blob: Blob, content_type: str, filename: str | None = None
) -> web.StreamResponse:
    """Answer with the bytes, no faster than the client reads."""
    response = web.StreamResponse()
    response.content_length = blob.size
    response.content_type = content_type
    if filename is not None:
        quoted = "".join(
            c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in filename
        )
        response.headers["Content-Disposition"] = f'attachment; filename="{quoted}"'
    pieces = blob.pieces()
    try:
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
    finally:
        pieces.close()
    await response.write_eof()
    return response
