"""A realtime session."""

from __future__ import annotations

import aiohttp
from aiohttp import web
from typing_extensions import override

from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import Env, UpstreamRequest
from kong_ai_proxy.relay import websocket
from kong_ai_proxy.relay.tries.base import Try, Unsuited
from kong_ai_proxy.relay.upstream import HandshakeRefused, UpstreamLost


class SessionTry(Try):
    """A WebSocket to the provider, and when that stands, one to the client."""

    @override
    async def _ask(self, env: Env) -> None:
        attempt, carrying = self.attempt, self._carrying
        try:
            outgoing = self._outgoing = attempt.start(env)
        except Refused as refused:
            raise Unsuited(refused) from None
        websocket.check(self._down.request)
        try:
            provider = await carrying.upstream.websocket(
                outgoing.address,
                websocket.handshake_headers(carrying.client, outgoing),
                websocket.protocols(carrying.client, outgoing),
                carrying.timeouts,
                websocket.MAX_MESSAGE,
            )
        except UpstreamLost as lost:
            self.sent = lost.sent
            await self._do(attempt.feed(lost.lost))
        except HandshakeRefused as refused:
            for event in websocket.unopened(refused.head, refused.body, refused.end):
                await self._do(attempt.feed(event))
        else:
            await self._bridge(outgoing, provider, self._down.request)

    async def _bridge(
        self,
        outgoing: UpstreamRequest,
        provider: aiohttp.ClientWebSocketResponse[bool],
        request: web.BaseRequest,
    ) -> None:
        reading = self.attempt.open_realtime()
        client = websocket.accepting(provider, outgoing)
        bridge = websocket.Bridge(
            client, provider, reading, self._carrying.timeouts.write, self.attempt.change_message
        )
        try:
            self._unlimited()
            self._down.upgrade(client)
            await client.prepare(request)
            await bridge.run()
        finally:
            self.failure, self.has_ended_session = bridge.failure, bridge.is_over
            await provider.close()
            self._down.drop()
