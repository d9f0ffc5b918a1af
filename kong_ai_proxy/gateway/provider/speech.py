"""The stand-in provider's speech: a beep a word, or silence as long, in all of OpenAI's formats."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from kong_ai_proxy.gateway.provider import sound, text
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    Rule,
    check_length,
    check_params,
    member,
    read_json,
    send_events,
    wrong_value,
)

_FORMATS: Final = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_VOICES: Final = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)
RULES: Final[dict[str, Rule]] = {
    "input": Rule("a string"),
    "instructions": Rule("a string"),
    "model": Rule("a string"),
    "response_format": Rule("a string", options=tuple(_FORMATS)),
    "speed": Rule("a decimal", 0.25, 4),
    "stream_format": Rule("a string", options=("sse", "audio")),
    "voice": Rule("a string or an object"),
}
_LONGEST: Final = 4096
_PIECE: Final = 12 * 1024
_TOKENS_A_SECOND: Final = 20


async def speech(request: web.Request) -> web.StreamResponse:
    """POST /v1/audio/speech"""
    body = _check(await read_json(request))
    made = _made(body)
    pieces = [made[at : at + _PIECE] for at in range(0, len(made), _PIECE)]
    if body.get("stream_format") == "sse":
        return await send_events(request, _events(body, pieces), done=False)
    response = web.StreamResponse()
    response.content_type = _FORMATS[body.get("response_format", "mp3")]
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


ROUTES: Final[tuple[Route, ...]] = (("POST", "/v1/audio/speech", speech),)


def _check(body: Json) -> Json:
    given = check_params(body, RULES, ("model", "input", "voice"))
    check_length("input", given["input"], _LONGEST, least=1)
    check_length("instructions", given.get("instructions", ""), _LONGEST)
    voice = given["voice"]
    if isinstance(voice, dict):
        member(voice, "id", "voice", Rule("a string"))
    elif voice not in _VOICES:
        raise wrong_value("voice", voice, _VOICES)
    if given.get("stream_format") == "sse" and given["model"].startswith("tts-1"):
        message = f"'stream_format' of 'sse' is not supported by the model '{given['model']}'."
        raise ApiError(400, message, param="stream_format", code="unsupported_value")
    return given


def _made(body: Json) -> bytes:
    said, speed = body["input"], body.get("speed", 1.0)
    wanted = body.get("response_format", "mp3")
    if wanted == "pcm":
        return sound.samples(said, speed)
    if wanted == "wav":
        return sound.wav(sound.samples(said, speed))
    seconds = sound.seconds_of(said, speed)
    silent = {"mp3": sound.mp3, "opus": sound.opus, "aac": sound.aac, "flac": sound.flac}
    return silent[wanted](seconds)


def _events(body: Json, pieces: list[bytes]) -> Iterator[Json]:
    for piece in pieces:
        yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}
    given = text.count(body["input"]) + text.count(body.get("instructions", ""))
    seconds = sound.seconds_of(body["input"], body.get("speed", 1.0))
    made = max(1, round(seconds * _TOKENS_A_SECOND))
    usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    yield {"type": "speech.audio.done", "usage": usage}
