"""What the relay sends back to Kong."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from kong_ai_proxy.exchange.messages import ResponseHead

FRAME_HEADER = "x-kong-ai-proxy-frame"
"""Tells the shim that a frame follows the body, and how long the body is without it."""

SERVER = "kong-ai-proxy"


class Downstream:
    """One answer to Kong. Nothing is written before it must be, so that a small answer leaves in
    one packet."""

    def __init__(
        self,
        request: web.BaseRequest,
        is_framed: Callable[[int], bool],
        frame: Callable[[], bytes],
    ) -> None:
        """`is_framed(status)` says whether something for the shim will follow the body, `frame`
        what, once the answer has ended."""
        self.status: int | None = None
        self.ended = False
        self.response: web.StreamResponse | None = None
        self.request = request
        self._is_framed = is_framed
        self._frame = frame
        self._head: ResponseHead | None = None
        self._length: int | None = None
        self._whole: bytes | None = None
        self._framed = False

    def commit(self, head: ResponseHead, length: int | None) -> None:
        """Take the answer's head. `length` of the body if it is known."""
        self.status = head.status
        self._head, self._length = head, length
        self._framed = self._is_framed(head.status)

    async def emit(self, chunk: bytes) -> None:
        """Send a piece of the body, no faster than Kong reads."""
        if self.response is None:
            if len(chunk) == self._length and self._whole is None:
                self._whole = chunk
                return
            await self._begin()
        assert self.response is not None
        await self.response.write(chunk)

    async def finish(self) -> None:
        """The body is complete."""
        self.ended = True
        frame = self._frame() if self._framed else b""
        if self.response is None:
            whole = self._whole or b""
            body = whole + frame if frame else whole
            self.response = web.Response(
                status=self._status, headers=self._headers(len(whole)), body=body
            )
            return
        if frame:
            await self.response.write(frame)
        await self.response.write_eof()

    async def abort(self) -> None:
        """Tell the shim, and end the connection so that nobody takes the body for complete."""
        self.ended = True
        frame = self._frame() if self._framed else b""
        if self.response is None:
            await self._begin()
        assert self.response is not None
        if frame:
            await self.response.write(frame)
        self.cut()

    def cut(self) -> None:
        """End the connection at once. aiohttp would otherwise end the body, or begin another
        answer in the middle of it."""
        self.ended = True
        transport = self.request.transport
        if transport is None:
            return
        if self.request.version < HttpVersion11:  # where the body ends with the connection
            transport.abort()
        else:
            transport.close()

    def forget(self) -> None:
        """Let go of who asked for this. A circle would keep the request's body until the next round
        of the garbage collector, with those of all others."""
        self._is_framed, self._frame = _never, bytes

    def drop(self) -> None:
        """Forget what the client did not take: closing would wait until it does."""
        transport = self.request.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()

    def upgrade(self, response: web.StreamResponse) -> None:
        """The connection becomes a WebSocket."""
        self.status, self.response = response.status, response
        response.headers.setdefault("server", SERVER)

    @property
    def _status(self) -> int:
        assert self._head is not None
        return self._head.status

    async def _begin(self) -> None:
        self.response = web.StreamResponse(status=self._status, headers=self._headers(self._length))
        await self.response.prepare(self.request)
        if self._whole is not None:
            await self.response.write(self._whole)

    def _headers(self, length: int | None) -> CIMultiDict[str]:
        assert self._head is not None
        headers: CIMultiDict[str] = CIMultiDict(self._head.headers)
        # nginx would swallow all of a stream that a client reads slowly.
        headers["x-accel-buffering"] = "no"
        headers.setdefault("server", SERVER)
        if self._framed:
            headers.popall("content-length", None)
            headers[FRAME_HEADER] = "chunked" if length is None else str(length)
        return headers


def _never(_status: int) -> bool:
    return False
