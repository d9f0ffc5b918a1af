"""One connection, read and written as bytes: what the HTTP side of the stand-in works on.

The HTTP libraries at hand decode header values, drop what is not UTF-8, reorder or rename headers;
a stand-in for nginx must not, so it reads and writes HTTP/1.1 itself (http1.py) on these streams.
"""

from __future__ import annotations

import asyncio

from typing_extensions import override

_READ_AHEAD = 64 * 1024


class Stream(asyncio.Protocol):
    """A TCP or TLS connection with backpressure both ways.

    `gone` is set as soon as the other side closes its half or the connection is lost.
    """

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._error: Exception | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None, "not connected"
        return self._transport

    @property
    def usable(self) -> bool:
        """Whether a kept connection can carry another request."""
        return not (self.gone.is_set() or self._buffer or self.transport.is_closing())

    @property
    def pending(self) -> bool:
        """Whether something has arrived that is not read yet."""
        return bool(self._buffer)

    # Called by asyncio

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._readable.set()
        if len(self._buffer) > _READ_AHEAD and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    @override
    def eof_received(self) -> bool:
        self._end(None)
        return self.transport.get_extra_info("sslcontext") is None  # TLS has no half-closed state

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._error = self._error or ConnectionResetError("connection closed")
        self._writable.set()

    @override
    def pause_writing(self) -> None:
        self._writable.clear()

    @override
    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self, error: Exception | None) -> None:
        self._error = self._error or error
        self.gone.set()
        self._readable.set()

    # Reading

    async def _more(self) -> bool:
        """Wait for more input than the buffer holds; False at the end. Raises when it broke."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        before = len(self._buffer)
        while len(self._buffer) == before:
            if self.gone.is_set():
                if isinstance(self._error, OSError) and not self._closed_cleanly():
                    raise self._error
                return False
            self._readable.clear()
            await self._readable.wait()
        return True

    def _closed_cleanly(self) -> bool:
        return isinstance(self._error, ConnectionResetError) and self._error.errno is None

    async def read(self, limit: int = _READ_AHEAD) -> bytes:
        """What is there, at least one byte and at most `limit`; b"" at the end."""
        if not self._buffer and not await self._more():
            return b""
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        return data

    async def read_until(self, separator: bytes, limit: int) -> bytes:
        """Everything up to and with `separator`.

        Raises EOFError with the bytes there are when the stream ends before, OverflowError when
        there are more than `limit` bytes without one.
        """
        start = 0
        while (found := self._buffer.find(separator, start)) < 0:
            if len(self._buffer) > limit:
                raise OverflowError(f"more than {limit} bytes without {separator!r}")
            start = max(0, len(self._buffer) - len(separator) + 1)
            if not await self._more():
                raise EOFError(bytes(self._buffer))
        end = found + len(separator)
        if end > limit:
            raise OverflowError(f"more than {limit} bytes without {separator!r}")
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        return data

    # Writing

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side does not read. Raises when the connection is lost."""
        if self._error is not None:
            raise self._error
        self.transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Send what is still to be sent, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, dropping what is not sent: the other side sees that something broke."""
        if self._transport is not None:
            self._transport.abort()
