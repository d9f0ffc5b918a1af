"""The stand-in provider's realtime API: a session over a WebSocket, of today's API or the beta."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterable
from typing import Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from kong_ai_proxy.gateway.provider.http import (
    SETTINGS,
    ApiError,
    Json,
    Route,
    raise_on_demand,
)
from kong_ai_proxy.gateway.provider.realtime_session import Session

PATH: Final = "/v1/realtime"
_PROTOCOL: Final = "realtime"
_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_BETA_PROTOCOL: Final = "openai-beta.realtime-v1"
_MOST_BYTES: Final = 24 * 1024 * 1024  # of an event: 15 MiB of audio are 20 in base64
_CLOSE_SECONDS: Final = 1.0  # for the client's part of the closing handshake

_Sockets = weakref.WeakSet[web.WebSocketResponse]
_SOCKETS: Final = web.AppKey("sockets", _Sockets)


def set_up(app: web.Application) -> None:
    """Let sessions under way end with the application."""
    app[_SOCKETS] = _Sockets()
    app.on_shutdown.append(_end_sessions)


async def _end_sessions(app: web.Application) -> None:
    sockets = app[_SOCKETS]
    await asyncio.gather(*(socket.close(code=WSCloseCode.GOING_AWAY) for socket in list(sockets)))


def _protocols(request: web.Request) -> list[str]:
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
    return [name.strip() for name in offered.split(",")]


def key_in_protocol(request: web.Request) -> str | None:
    """The key that a browser, which cannot set headers, offers as a subprotocol."""
    for name in _protocols(request) if request.path == PATH else ():
        if name.startswith(_KEY_PROTOCOL):
            return name.removeprefix(_KEY_PROTOCOL)
    return None


async def realtime(request: web.Request) -> web.StreamResponse:
    """GET /v1/realtime"""
    socket = web.WebSocketResponse(
        protocols=(_PROTOCOL,), max_msg_size=_MOST_BYTES, timeout=_CLOSE_SECONDS
    )
    if not socket.can_prepare(request):
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}  # RFC 9110 section 15.5.22
        raise ApiError(426, "The realtime API is a WebSocket: upgrade needed.", headers=headers)
    model = request.query.get("model")
    if not model:
        raise ApiError(400, "you must provide a model parameter", param="model")
    raise_on_demand(model)
    beta = "realtime=v1" in request.headers.get("OpenAI-Beta", "")
    session = Session(model, ga=not beta and _BETA_PROTOCOL not in _protocols(request))
    await socket.prepare(request)
    request.app[_SOCKETS].add(socket)
    await _Conversation(socket, session, request.app[SETTINGS].word_seconds).run()
    return socket


class _Conversation:
    """Carries a session's events over its socket."""

    def __init__(self, socket: web.WebSocketResponse, session: Session, pause: float) -> None:
        self._socket = socket
        self._session = session
        self._pause = pause
        self._reply: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the client has gone."""
        try:
            with contextlib.suppress(ConnectionError):
                await self._send(self._session.opening())
                async for message in self._socket:
                    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                        await self._send(self._session.receive(message.data))
                        self._respond()
        finally:
            if self._reply is not None:
                self._reply.cancel()
                await asyncio.gather(self._reply, return_exceptions=True)

    def _respond(self) -> None:
        """Send a response beside what the client may say meanwhile."""
        if self._session.responding and (self._reply is None or self._reply.done()):
            self._reply = asyncio.create_task(self._send_reply())

    async def _send_reply(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (event := self._session.next()) is not None:
                await self._send([event])
                await asyncio.sleep(self._pause)  # also without a pause: the client may cancel

    async def _send(self, events: Iterable[Json]) -> None:
        for event in events:
            await self._socket.send_str(orjson.dumps(event).decode())


ROUTES: Final[tuple[Route, ...]] = (("GET", PATH, realtime),)
