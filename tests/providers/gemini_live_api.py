"""A stand-in for Gemini Live, of the Gemini API or of Vertex AI.

https://ai.google.dev/api/live; the messages are checked with, and answered in, Google's own types.
As Google's, it sends JSON in binary frames and takes it in frames of both kinds.

    async with GeminiLive() as live:
        ...  # a session at live.url
        assert live.failures == []
        assert live.sessions[0].model == "models/gemini-live"
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson
import pydantic
from aiohttp import WSMsgType, web
from google.genai import _live_converters, types
from multidict import CIMultiDictProxy

Json = dict[str, Any]

MODEL: Final = "gemini-live-2.5-flash"
KEY: Final = "operators-key"
TOKEN: Final = "ya29.stand-in"
PLACE: Final = "projects/acme/locations/us-central1"
SERVICE: Final = "/ws/google.ai.generativelanguage.{}.GenerativeService.{}"
VERTEX_SERVICE: Final = "/ws/google.cloud.aiplatform.{}.LlmBidiService/BidiGenerateContent"
MUSIC: Final = "BidiGenerateMusic"
SOUND: Final = bytes(range(256)) * 8
PROMPT: Final = 10  # tokens of the setup; each turn's message has 5, and its answer 7
_PUBLIC_PATHS: Final = frozenset(
    SERVICE.format(version, method)
    for version in ("v1", "v1alpha", "v1beta")
    for method in ("BidiGenerateContent", "BidiGenerateContentConstrained")
) | {SERVICE.format("v1alpha", MUSIC)}
_VERTEX_PATHS: Final = frozenset(VERTEX_SERVICE.format(version) for version in ("v1", "v1beta1"))
_CALL: Final = {"id": "1", "name": "get_weather", "args": {"city": "Bern"}}


@dataclass
class Session:
    """One session as the server saw it."""

    path: str
    query: str
    headers: CIMultiDictProxy[str]
    socket: web.WebSocketResponse
    setup: Json | None = None
    messages: list[Json] = field(default_factory=list)
    """What came after the setup."""
    closed: int | None = None
    """The client's close code, once it is over."""
    turns: int = 0

    @property
    def is_music(self) -> bool:
        """Whether it makes music: https://ai.google.dev/api/live_music."""
        return self.path.endswith(MUSIC)

    @property
    def model(self) -> str:
        """What the setup named."""
        assert self.setup is not None
        return str(self.setup["model"])


class _Close(Exception):  # noqa: N818 - the end of a session, in Google's words
    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


class GeminiLive:
    """The server. `vertex` makes it Vertex AI's, with its paths, tokens and names of models."""

    def __init__(self, *, vertex: bool = False, refuse: web.Response | None = None) -> None:
        self.sessions: list[Session] = []
        self.failures: list[str] = []
        self._vertex = vertex
        self._refuse = refuse

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self.sessions:
            with contextlib.suppress(ConnectionError):
                await session.socket.close()
        await self._runner.cleanup()

    @property
    def session(self) -> Session:
        """The last one."""
        return self.sessions[-1]

    async def say(self, message: Json) -> None:
        """Send a message in the last session, unasked."""
        await self._send(self.session, message)

    def abort(self) -> None:
        """Lose the connection of the last session."""
        request = self.session.socket._req
        assert request is not None
        assert request.transport is not None
        request.transport.abort()

    # ---- a session

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._refuse is not None:
            return self._refuse
        if refused := self._refused(request):
            self.failures.append(refused.text or "")
            return refused
        socket = web.WebSocketResponse(max_msg_size=0, timeout=1.0)
        await socket.prepare(request)
        session = Session(request.path, request.query_string, request.headers, socket)
        self.sessions.append(session)
        try:
            await self._run(session)
        except _Close as close:
            self.failures.append(close.reason)
            await socket.close(code=close.code, message=close.reason.encode())
        except ConnectionError:
            pass
        session.closed = socket.close_code
        return socket

    def _refused(self, request: web.Request) -> web.Response | None:
        if request.path not in (_VERTEX_PATHS if self._vertex else _PUBLIC_PATHS):
            return web.json_response({"error": {"code": 404, "status": "NOT_FOUND"}}, status=404)
        shown = request.headers.get("x-goog-api-key") or request.query.get("key")
        if self._vertex:
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if shown != (TOKEN if self._vertex else KEY):
            return web.json_response({"error": {"code": 403, "status": "DENIED"}}, status=403)
        return None

    async def _run(self, session: Session) -> None:
        async for frame in session.socket:
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            message = self._checked(session, frame.data)
            if session.setup is None:
                self._set_up(session, message)
                await self._send(session, {"setupComplete": {}})
            elif "setup" in message:
                raise _Close(1007, "setup must be sent only in the first message")
            else:
                session.messages.append(message)
                for answer in self._answers(session, message):
                    await self._send(session, answer)
                    await asyncio.sleep(0)

    def _checked(self, session: Session, data: str | bytes) -> Json:
        kind = types.LiveMusicClientMessage if session.is_music else types.LiveClientMessage
        try:
            message: Json = orjson.loads(data)
            found = kind.model_validate(_known(message))
        except (orjson.JSONDecodeError, pydantic.ValidationError) as error:
            raise _Close(1007, f"Request contains an invalid argument. {error}"[:120]) from None
        if len(found.model_fields_set) != 1:
            raise _Close(1007, "expected exactly one member")
        return message

    def _set_up(self, session: Session, message: Json) -> None:
        if "setup" not in message:
            raise _Close(1007, "setup must be the first message")
        session.setup = message["setup"]
        model = session.setup.get("model") if session.setup else None
        expected = (
            f"{PLACE}/publishers/google/models/{MODEL}" if self._vertex else f"models/{MODEL}"
        )
        if model != expected:
            raise _Close(1008, f"{model} is not found for API version v1beta"[:120])

    def _answers(self, session: Session, message: Json) -> Iterator[Json]:
        content = message.get("clientContent") or message.get("client_content") or {}
        live = message.get("realtimeInput") or message.get("realtime_input") or {}
        responds = "toolResponse" in message or "tool_response" in message
        if session.is_music:
            if "playbackControl" in message:
                yield {"serverContent": {"audioChunks": [_sound()]}}
        elif b"weather" in orjson.dumps(message) and not responds:
            yield {"toolCall": {"functionCalls": [_CALL]}}
            yield self._used(session)
        elif live.get("audioStreamEnd") or live.get("audio_stream_end"):
            yield from self._turn(session, {"inlineData": _sound()})
        elif responds or content.get("turnComplete") or content.get("turn_complete"):
            yield from self._turn(session, {"text": "Hello "}, {"text": "there."})
        elif live.get("text"):
            yield from self._turn(session, {"text": live["text"]})

    def _turn(self, session: Session, *parts: Json) -> Iterator[Json]:
        for part in parts:
            yield {"serverContent": {"modelTurn": {"role": "model", "parts": [part]}}}
        yield {"serverContent": {"generationComplete": True}}
        yield {"serverContent": {"turnComplete": True}, **self._used(session)}

    def _used(self, session: Session) -> Json:
        """The prompt of a turn is all that was said before it."""
        prompt = PROMPT + 5 + 12 * session.turns
        session.turns += 1
        name = "candidates" if self._vertex else "response"
        return {
            "usageMetadata": {
                "promptTokenCount": prompt,
                f"{name}TokenCount": 7,
                "totalTokenCount": prompt + 7,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
                f"{name}TokensDetails": [{"modality": "AUDIO", "tokenCount": 7}],
            }
        }

    async def _send(self, session: Session, message: Json) -> None:
        if session.is_music:
            types.LiveMusicServerMessage.model_validate(message)
            await session.socket.send_bytes(orjson.dumps(message))
            return
        told = _live_converters._LiveServerMessage_from_vertex(message) if self._vertex else message
        types.LiveServerMessage.model_validate(told)
        await session.socket.send_bytes(orjson.dumps(message))


def _known(message: Json) -> Json:
    """The message without what Google's type of a setup lacks, though its client sends it."""
    setup = message.get("setup")
    if not isinstance(setup, dict) or "realtimeInputConfig" not in setup:
        return message
    types.RealtimeInputConfig.model_validate(setup["realtimeInputConfig"])
    rest = {name: value for name, value in setup.items() if name != "realtimeInputConfig"}
    return {**message, "setup": rest}


def _sound() -> Json:
    return {"mimeType": "audio/pcm;rate=24000", "data": base64.b64encode(SOUND).decode()}
