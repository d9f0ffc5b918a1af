"""WebSockets through the relay: messages are passed one by one, so that they can be counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from multidict import CIMultiDict

from kong_ai_proxy.exchange.errors import BAD_REQUEST, UPGRADE_REQUIRED, Refused
from kong_ai_proxy.exchange.messages import (
    ClientRequest,
    Data,
    End,
    Event,
    Head,
    Lost,
    ResponseHead,
    UpstreamRequest,
)
from kong_ai_proxy.exchange.realtime_reading import Message, SessionReading
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.relay.incoming import outgoing_headers
from kong_ai_proxy.relay.upstream import CLOSE_SECONDS

MAX_MESSAGE = 24 * 1024 * 1024 + 1
"""Bytes that a message must not reach, as aiohttp counts. OpenAI takes at most 15 MiB of audio in
one, which are 20 in base64."""

PROTOCOL_HEADER = "sec-websocket-protocol"
_VERSION = "13"
BAD_GATEWAY = WSCloseCode.BAD_GATEWAY
"""1014: the gateway has lost the provider (IANA, WebSocket Close Code Number Registry)."""

MAX_REASON = 123
"""Bytes of the text in a close (RFC 6455 section 5.5)."""

Change = Callable[[Message], Message]
"""What goes on of a message. Raises FormatError for one that must not."""

_PASSED = frozenset({WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG})
_NEVER_SENT = frozenset({1004, 1005, 1006, 1015})
"""Codes that no close may have, or that mean nothing (RFC 6455 section 7.4.1)."""
_LARGEST_CODE = 4999
_GOOD_ENDS = (0, WSCloseCode.OK, WSCloseCode.GOING_AWAY)  # 0: a close without a code

# It warns of subprotocols that were not chosen, which may be a client's key.
logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)


def check(request: web.BaseRequest) -> None:
    """Raise Refused for a handshake that could not be answered once the provider has been reached:
    426 for a version other than 13 (RFC 6455 section 4.4), 400 for what else is wrong."""
    if request.headers.getall("sec-websocket-version", []) != [_VERSION]:
        told = {"upgrade": "websocket", "sec-websocket-version": _VERSION}
        raise Refused(UPGRADE_REQUIRED, "expected a WebSocket handshake of version 13", told)
    if not web.WebSocketResponse().can_prepare(request).ok:
        raise Refused(
            BAD_REQUEST,
            "expected a WebSocket handshake with a key of 16 bytes in base64",
        )


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


def unopened(head: ResponseHead, body: bytes, end: End | Lost) -> tuple[Event, ...]:
    """What an answer is that opens no WebSocket. Errors are the client's to know; whatever else a
    server answers a handshake with (a page to log in, a redirect) is none."""
    if head.status >= BAD_REQUEST:
        return Head(head), Data(body), end
    return (Lost("invalid_header", f"status {head.status} in answer to a WebSocket handshake"),)


def accepting(
    provider: aiohttp.ClientWebSocketResponse[bool], upstream: UpstreamRequest
) -> web.WebSocketResponse[bool]:
    """The answer to the client's handshake, with the subprotocol that the provider chose."""
    client = web.WebSocketResponse(
        timeout=CLOSE_SECONDS,
        autoclose=False,
        autoping=False,
        compress=False,
        max_msg_size=MAX_MESSAGE,
    )
    client.headers.update(upstream.response_headers)
    if provider.protocol:  # aiohttp would look for it in the first of several header lines
        client.headers[PROTOCOL_HEADER] = provider.protocol
    return client


class Bridge:
    """Passes messages both ways until either side closes, then closes the other one with its code.

    A side that takes nothing for `write_seconds` is lost.
    """

    def __init__(
        self,
        client: web.WebSocketResponse[bool],
        provider: aiohttp.ClientWebSocketResponse[bool],
        reading: SessionReading | None,
        write_seconds: float,
        change: Change | None = None,
    ) -> None:
        """`change` is for what the client sends: where it raises FormatError, the client is closed
        with 1008 and the error's text, and the provider gets nothing of it."""
        self.failure: str | None = None
        """Why it did not end well."""
        self.is_over = False
        """Whether a side has ended it. The client may leave then, before `run` has returned."""
        self._client = client
        self._provider = provider
        self._seconds = write_seconds
        self._up = _Watch(reading.feed_client if reading else None, change)
        self._down = _Watch(reading.feed_provider if reading else None)

    async def run(self) -> None:
        """Raises CancelledError when the client has left."""
        client, provider, seconds = self._client, self._provider, self._seconds
        up = asyncio.create_task(_pass(client, provider, self._up, seconds))
        down = asyncio.create_task(_pass(provider, client, self._down, seconds))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            ended, last = (up if up.done() else down).result()
            if ended is client:
                await self._close(client, provider, last, WSCloseCode.GOING_AWAY, "the client left")
            else:
                await self._close(provider, client, last, BAD_GATEWAY, "the provider was lost")
        except FormatError as error:  # what was the client's
            self.is_over, self.failure = True, str(error)
            await asyncio.gather(  # once it knows, the client leaves, which cancels this
                _closed(client, WSCloseCode.POLICY_VIOLATION, _reason(self.failure)),
                _closed(provider, WSCloseCode.GOING_AWAY),
            )
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            await _closed(provider, WSCloseCode.GOING_AWAY)

    async def _close(
        self, ended: Any, other: Any, last: aiohttp.WSMessage | None, code: int, why: str
    ) -> None:
        """Close both sides after `last`, the message of the side that ended. `code` tells the other
        one that it was lost."""
        self.is_over, own = True, WSCloseCode.GOING_AWAY
        if last is not None and last.type is WSMsgType.CLOSE:
            if last.data not in _NEVER_SENT and last.data <= _LARGEST_CODE:
                if ended is self._provider and last.data not in _GOOD_ENDS:
                    self.failure = f"the provider closed with {last.data}: {last.extra}"
                reason = (last.extra or "").encode()
                await _closed(other, last.data, reason)
                await _closed(ended, last.data, reason)
                return
            own, why = WSCloseCode.PROTOCOL_ERROR, f"WebSocket closed with {last.data}"
        elif last is not None and last.type is WSMsgType.ERROR:  # aiohttp has closed it with a code
            why = f"WebSocket closed with {ended.close_code}: {type(last.data).__name__}"
        self.failure = why
        await _closed(other, code)
        await _closed(ended, own)


def is_closed(response: web.StreamResponse | None) -> bool:
    """Whether this is a WebSocket that the client has closed as one should."""
    return isinstance(response, web.WebSocketResponse) and response.close_code in _GOOD_ENDS


def _reason(text: str) -> bytes:
    """As much of `text` as a close can tell."""
    return text.encode()[:MAX_REASON].decode(errors="ignore").encode()


class _Watch(NamedTuple):
    """What is done with one side's messages before they go on."""

    seen: Callable[[Message], None] | None
    change: Change | None = None

    def feed(self, message: aiohttp.WSMessage) -> aiohttp.WSMessage:
        """The message to pass on. Raises FormatError."""
        if self.seen:
            self.seen(message.data)
        if self.change:
            changed = self.change(message.data)
            if changed is not message.data:
                return aiohttp.WSMessage(message.type, changed, message.extra)
        return message


async def _pass(
    source: Any, sink: Any, watch: _Watch, seconds: float
) -> tuple[Any, aiohttp.WSMessage | None]:
    """Pass on what comes until a side ends. That side, and the message with which it did; None
    when it took no more. Raises FormatError."""
    while True:
        message = await source.receive()
        if message.type not in _PASSED:
            return source, message
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            message = watch.feed(message)
        try:
            async with asyncio.timeout(seconds):
                await _send(sink, message)
        except (OSError, aiohttp.ClientError):  # TimeoutError is an OSError
            return sink, None


async def _send(sink: Any, message: aiohttp.WSMessage) -> None:
    match message.type:
        case WSMsgType.TEXT:
            await sink.send_str(message.data)
        case WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        case WSMsgType.PING:
            await sink.ping(message.data)
        case _:
            await sink.pong(message.data)


async def _closed(socket: Any, code: int, reason: bytes = b"") -> None:
    """Close a side, if it is not closed yet; with the code 0 without a status."""
    with contextlib.suppress(OSError, aiohttp.ClientError):  # TimeoutError is an OSError
        async with asyncio.timeout(CLOSE_SECONDS):
            if not code and not socket.closed:
                await _close_without_status(socket)
            await socket.close(code=code, message=reason)


async def _close_without_status(socket: Any) -> None:
    """aiohttp's close always tells a status, so a bare one is sent before, and in its place."""

    async def sent(_code: int, _message: bytes) -> None:
        """It has been."""

    await socket.send_frame(b"", WSMsgType.CLOSE)
    socket._writer.close = sent
