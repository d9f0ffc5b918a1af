"""The client's body on its way to the provider: read whole, or passed on as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

import aiohttp
from aiohttp import web

from kong_ai_proxy.exchange.errors import BAD_REQUEST, Refused
from kong_ai_proxy.exchange.messages import BodyFilter, ClientRequest, UpstreamRequest
from kong_ai_proxy.exchange.plan import too_large
from kong_ai_proxy.relay.passing import PassingBody


class ClientBody:
    """The body of one request."""

    def __init__(self, request: web.BaseRequest, client: ClientRequest, kept: int) -> None:
        """`kept`: bytes of a body that nobody reads whole which are kept to be sent again."""
        self.whole: bytes | None = None
        """All of it, once it was read."""
        self.refused: Refused | None = None
        """Why it has ended before its end, while it was passed on."""
        self._request = request
        self._has_body = client.has_body
        self._passing = PassingBody(partial(_piece, request), kept)
        self._is_asked_for = False

    @property
    def is_awaited(self) -> bool:
        """Whether its next piece is waited for."""
        return self._passing.is_awaited

    @property
    def can_be_sent_again(self) -> bool:
        """Whether another target can have the same."""
        return self.whole is not None or self._passing.is_whole

    async def read(self, most: int) -> bytes:
        """All of it, at most `most` bytes where that is not 0. Raises Refused."""
        pieces: list[bytes] = []
        size = 0
        await self._ask_for_it()
        while piece := await _piece(self._request):
            size += len(piece)
            if most and size > most:
                raise too_large()
            pieces.append(piece)
        self.whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self.whole

    def begin(self) -> None:
        """Give it from its beginning, to another target. Only while it can be sent again."""
        self._passing.begin()

    def outgoing(self, outgoing: UpstreamRequest) -> bytes | AsyncGenerator[bytes] | None:
        """What goes to the provider."""
        if isinstance(outgoing.body, bytes):
            return outgoing.body
        if self.whole is not None:
            return self.whole or None
        return self._streamed(outgoing.body) if self._has_body else None

    async def take(self) -> bytes | Refused:
        """The next piece for who takes it apart, b"" at its end, or why there is none."""
        if self.whole is not None or not self._has_body:
            return b""
        await self._ask_for_it()
        try:
            return await self._passing.take()
        except Refused as refused:
            return refused

    async def _streamed(self, change: BodyFilter | None) -> AsyncGenerator[bytes]:
        """The body as it arrives, changed where it has to be.

        While the provider takes nothing of it, the client is not read from, and that it has left is
        seen when the time to write is over: its end waits behind what it has sent.
        """
        try:
            await self._ask_for_it()
            while piece := await self._passing.take():
                changed = change.feed(piece) if change else piece
                if changed:
                    yield changed
            if change and (rest := change.end()):
                yield rest
        except Refused as refused:  # aiohttp would only say that sending has failed
            self.refused = refused
            raise

    async def _ask_for_it(self) -> None:
        """Have a client send it that waits for our word (RFC 9110 section 10.1.1)."""
        if self._is_asked_for:
            return
        self._is_asked_for = True
        if self._request.headers.get("expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0


async def _piece(request: web.BaseRequest) -> bytes:
    """What has arrived, b"" at its end. Raises Refused where it breaks off."""
    try:
        return await request.content.readany()
    except (aiohttp.ClientError, web.RequestPayloadError, OSError):
        raise Refused(BAD_REQUEST, "the request's body broke off") from None
