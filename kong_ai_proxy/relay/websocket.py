"""WebSockets through the relay: messages are passed one by one, so that they can be counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from multidict import CIMultiDict

from kong_ai_proxy.exchange.messages import ClientRequest, UpstreamRequest
from kong_ai_proxy.exchange.realtime_reading import RealtimeReading
from kong_ai_proxy.relay.incoming import outgoing_headers
from kong_ai_proxy.relay.upstream import CLOSE_SECONDS

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message. OpenAI takes at most 15 MiB of audio in one."""

PROTOCOL_HEADER = "sec-websocket-protocol"
BAD_GATEWAY = WSCloseCode.BAD_GATEWAY
"""1014: the gateway has lost the provider (IANA, WebSocket Close Code Number Registry)."""

Seen = Callable[[str], None]


def handshake_headers(client: ClientRequest, upstream: UpstreamRequest) -> CIMultiDict[str]:
    """The headers for the provider's handshake; key, version and extensions are the relay's."""
    headers = outgoing_headers(client, upstream)
    for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
        del headers[name]
    return headers


def protocols(client: ClientRequest, upstream: UpstreamRequest) -> list[str]:
    """The subprotocols that are offered to the provider, in the client's order."""
    offered: tuple[str, ...] = client.headers.get(PROTOCOL_HEADER, ())
    if PROTOCOL_HEADER in upstream.set_headers:
        offered = (upstream.set_headers[PROTOCOL_HEADER],)
    elif PROTOCOL_HEADER in upstream.drop_headers:
        offered = ()
    return [each.strip() for value in offered for each in value.split(",") if each.strip()]


def accepting(
    provider: aiohttp.ClientWebSocketResponse[bool], upstream: UpstreamRequest
) -> web.WebSocketResponse[bool]:
    """The answer to the client's handshake, with the subprotocol that the provider chose."""
    chosen = (provider.protocol,) if provider.protocol else ()
    client = web.WebSocketResponse(
        protocols=chosen,
        timeout=CLOSE_SECONDS,
        autoclose=False,
        autoping=False,
        compress=False,
        max_msg_size=MAX_MESSAGE,
    )
    client.headers.update(upstream.response_headers)
    return client


async def bridge(
    client: web.WebSocketResponse[bool],
    provider: aiohttp.ClientWebSocketResponse[bool],
    reading: RealtimeReading | None,
) -> str | None:
    """Pass messages both ways until either side closes; then close the other one with its code.

    Returns why it did not end well, or None.
    """
    on_client = reading.feed_client if reading else _ignore
    on_provider = reading.feed_provider if reading else _ignore
    up = asyncio.create_task(_pass(client, provider, on_client))
    down = asyncio.create_task(_pass(provider, client, on_provider))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        source, sink, done = (client, provider, up) if up.done() else (provider, client, down)
        return await _close(source, sink, done.result(), lost_provider=done is down)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        with contextlib.suppress(Exception):
            await provider.close()


def _ignore(_text: str) -> None:
    """Nobody wants to know."""


async def _pass(source: Any, sink: Any, seen: Seen) -> aiohttp.WSMessage | None:
    """Pass on what comes until the source closes. The message that closed it; None for no more."""
    try:
        while True:
            message = await source.receive()
            kind = message.type
            if kind is WSMsgType.TEXT:
                seen(message.data)
                await sink.send_str(message.data)
            elif kind is WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif kind is WSMsgType.PING:
                await sink.ping(message.data)
            elif kind is WSMsgType.PONG:
                await sink.pong(message.data)
            else:
                return message  # type: ignore[no-any-return]
    except (OSError, aiohttp.ClientError):
        return None


async def _close(
    source: Any, sink: Any, last: aiohttp.WSMessage | None, *, lost_provider: bool
) -> str | None:
    """Close both sides after `last`, the message of the side that ended."""
    if last is not None and last.type is WSMsgType.CLOSE:
        code = last.data or WSCloseCode.OK
        reason = (last.extra or "").encode()
        await _closed(sink, code, reason)
        await _closed(source, code, reason)
        return None
    if last is not None and last.type is WSMsgType.ERROR:
        code = source.close_code or WSCloseCode.PROTOCOL_ERROR
        await _closed(source, code, b"")
        await _closed(sink, BAD_GATEWAY if lost_provider else WSCloseCode.GOING_AWAY, b"")
        return f"WebSocket closed with {code}: {type(last.data).__name__}"
    await _closed(sink, BAD_GATEWAY if lost_provider else WSCloseCode.GOING_AWAY, b"")
    return "the provider's WebSocket was lost" if lost_provider else "the client left"


async def _closed(socket: Any, code: int, reason: bytes) -> None:
    with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(code=code, message=reason)
