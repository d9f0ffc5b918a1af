"""One call, one answer."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import Data, End, Env, Head, Lost, UpstreamRequest
from kong_ai_proxy.relay.incoming import outgoing_headers
from kong_ai_proxy.relay.tries.base import Try, Unsuited
from kong_ai_proxy.relay.upstream import Call, UpstreamLost

ERROR_SECONDS = 1.0
"""For all of an error's text, where another target can be asked instead."""


class CallTry(Try):
    """The client's request, for the most part as it is."""

    @override
    async def _ask(self, env: Env) -> None:
        attempt, body = self.attempt, self._carrying.body
        try:
            self._outgoing = attempt.start(env)
        except Refused as refused:
            raise Unsuited(refused) from None
        try:
            call = await self._send(self._outgoing)
        except UpstreamLost as lost:
            self.sent = lost.sent
            if body.refused:
                raise body.refused from None
            await self._do(attempt.feed(lost.lost))
            return
        self.sent, self._ip = True, call.ip
        try:
            await self._pass_on(call)
        finally:
            call.release()

    async def _send(self, outgoing: UpstreamRequest) -> Call:
        carrying = self._carrying
        return await carrying.upstream.send(
            outgoing.method,
            outgoing.address,
            outgoing_headers(carrying.client, outgoing),
            carrying.body.outgoing(outgoing),
            carrying.timeouts,
        )

    async def _pass_on(self, call: Call) -> None:
        attempt = self.attempt
        await self._do(attempt.feed(Head(call.head)))
        until = self._loop.time() + ERROR_SECONDS
        while not self._down.ended:
            try:
                chunk = await (_error_text(call, until) if attempt.is_failing else call.read())
            except UpstreamLost as lost:
                await self._do(attempt.feed(lost.lost))
                continue
            direct = attempt.direct  # an answer that is converted has one once it is committed
            if direct is None or not chunk or self._pace is not None:
                await self._do(attempt.feed(Data(chunk) if chunk else End()))
                continue
            if changed := direct(chunk):
                await self._down.emit(changed)
            if self.first_content is None:
                self._note_first_content()
            if attempt.direct is None:  # it has failed: this ends it
                await self._do(attempt.feed(Data(b"")))


async def _error_text(call: Call, until: float) -> bytes:
    """The next of an error that another target's answer may make worthless. Raises UpstreamLost."""
    try:
        async with asyncio.timeout_at(until):
            return await call.read()
    except TimeoutError:
        raise UpstreamLost(Lost("timeout", "an error's text does not end")) from None
