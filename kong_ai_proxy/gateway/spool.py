"""Where a client's body waits until it is sent on: in memory up to 8 kB, else in a file.

As nginx does it: `client_body_buffer_size 8k`, files of mode 0600 in a directory of mode 0700,
gone with the request. They are read and written between two events, as in nginx: a piece of 64 kB
takes some microseconds, and a request that is given up leaves nothing open.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO, Protocol

from kong_ai_proxy.gateway.context import Body
from kong_ai_proxy.gateway.http1 import Framing

BUFFER_SIZE = 8 * 1024
_PIECE = 64 * 1024


class Source(Protocol):
    """A body on its way: see `http1.BodyReader`."""

    @property
    def framing(self) -> Framing: ...

    @property
    def complete(self) -> bool: ...

    async def read(self) -> bytes: ...


class Spool:
    """The private directory of one gateway for the bodies of requests under way."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kong-ai-proxy-bodies-"))
        self._number = 0

    def remove(self) -> None:
        """Delete the directory with everything in it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    async def receive(self, reader: Source, body: Body) -> None:
        """Read a body to its end into `body`; one whose Content-Length is over 8 kB goes straight
        to a file.

        Raises what `reader` raises; a file written so far stays for `discard`.
        """
        pieces: list[bytes] = []
        size = 0
        while not reader.complete:
            piece = await reader.read()
            pieces.append(piece)
            size += len(piece)
            if size > BUFFER_SIZE or (reader.framing.length or 0) > BUFFER_SIZE:
                await self._receive_into_file(reader, body, b"".join(pieces))
                return
        body.content = b"".join(pieces)

    async def _receive_into_file(self, reader: Source, body: Body, start: bytes) -> None:
        self._number += 1
        body.file = self.directory / f"{self._number:010d}"
        with _create(body.file) as file:
            file.write(start)
            while piece := await reader.read():
                file.write(piece)


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "wb")


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def discard(body: Body) -> None:
    """Delete the body's file, if it has one."""
    if body.file is not None:
        body.file.unlink(missing_ok=True)


def size(body: Body) -> int:
    """Bytes of a body that has been received."""
    return body.file.stat().st_size if body.file is not None else len(body.content)


async def pieces(body: Body) -> AsyncGenerator[bytes]:
    """A received body from its start, as often as it is asked for."""
    if body.file is None:
        if body.content:
            yield body.content
        return
    with _open(body.file) as file:
        while piece := file.read(_PIECE):
            yield piece
