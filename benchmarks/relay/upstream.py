"""The provider: answers at once, from memory, with as little work as Python allows.

`python -m benchmarks.relay.upstream CORE` prints its port.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from typing_extensions import override

from benchmarks.relay import cases, pinned, wire

OK = b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: bench\r\n"


def _whole(body: bytes) -> bytes:
    lines = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return OK + lines + body


def _pieces(case: cases.Case) -> tuple[bytes, ...]:
    """What is written for a case, each piece on its own."""
    if not case.streams:
        return (_whole(case.answer[0]),)
    media_type = case.media_type.encode()
    first = OK + b"Content-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % media_type
    *chunks, last = (wire.chunk(event) for event in case.answer)
    return (first + chunks[0], *chunks[1:], last + wire.LAST_CHUNK)


ANSWERS = {case.name.encode(): (_pieces(case), case.pause) for case in cases.BY_NAME.values()}


class Provider(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._body: wire.Body | None = None
        self._writable = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._writable.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()

    @override
    def pause_writing(self) -> None:
        self._writable.clear()

    @override
    def resume_writing(self) -> None:
        self._writable.set()

    @override
    def data_received(self, data: bytes) -> None:
        if self._body is None:
            self._buffer += data
            at = self._buffer.find(wire.HEAD_END)
            if at < 0:
                return
            head, data = self._buffer[: at + 2], self._buffer[at + 4 :]
            self._begin(head)
        assert self._body is not None
        pieces = self._body.feed(data) if data else ()
        if self._digest is not None:
            for piece in pieces:
                self._digest.update(piece)
        if self._body.done:
            self._body = None
            self._answer()

    def _begin(self, head: bytes) -> None:
        self._buffer = b""
        self._body = wire.Body(head)
        path = head.split(b" ", 2)[1]
        self._name = path.split(b"/")[1].split(b"?")[0]
        self._digest = hashlib.sha256() if self._name == cases.UPLOAD.encode() else None

    def _answer(self) -> None:
        if self._digest is not None:
            self._transport.write(_whole(b'{"sha256":"%b"}' % self._digest.hexdigest().encode()))
        elif self._name == cases.DOWNLOAD.encode():
            task = self._loop.create_task(self._download())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            pieces, pause = ANSWERS[self._name]
            self._write_next(iter(pieces), pause)

    def _write_next(self, pieces: Iterator[bytes], pause: float) -> None:
        """Each piece in a turn of the loop of its own, so that it is a segment of its own."""
        piece = next(pieces, None)
        if piece is None or self._transport.is_closing():
            return
        self._transport.write(piece)
        if pause:
            self._loop.call_later(pause, self._write_next, pieces, pause)
        else:
            self._loop.call_soon(self._write_next, pieces, pause)

    async def _download(self) -> None:
        size = cases.BULK_PIECES * cases.MEGABYTE
        lines = b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size
        self._transport.write(OK + lines)
        for piece in cases.bulk():
            self._transport.write(piece)
            await self._writable.wait()


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """The provider's port."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=1024)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


if __name__ == "__main__":
    pinned.serve(int(sys.argv[1]), listening())
