"""The stand-in provider's transcriptions and translations: it says how much it heard, not what.

WAV files are read for their length; of other formats only the kind is checked and the length is
taken from the size, as if it were 128 kbit/s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kong_ai_proxy.gateway.provider import sound, text
from kong_ai_proxy.gateway.provider.blob import Blob
from kong_ai_proxy.gateway.provider.form import form_of
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    json_response,
    send_events,
    wrong_value,
)

_FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
_ARRAY: Final = Rule("an array")
RULES: Final[dict[str, Rule]] = {
    "chunking_strategy": Rule("a string or an object"),
    "include": _ARRAY,
    "keywords": _ARRAY,
    "known_speaker_names": _ARRAY,
    "known_speaker_references": _ARRAY,
    "language": Rule("a string"),
    "languages": _ARRAY,
    "model": Rule("a string"),
    "prompt": Rule("a string"),
    "response_format": Rule("a string", options=(*_FORMATS, "diarized_json")),
    "stream": Rule("a boolean"),
    "temperature": Rule("a decimal", 0, 1),
    "timestamp_granularities": _ARRAY,
}
TRANSLATION_RULES: Final[dict[str, Rule]] = {
    "model": Rule("a string"),
    "prompt": Rule("a string"),
    "response_format": Rule("a string", options=_FORMATS),
    "temperature": Rule("a decimal", 0, 1),
}

_MOST_BYTES: Final = 25 * 1024 * 1024  # "File uploads are currently limited to 25 MB"
_LEAST_SECONDS: Final = 0.1
_BYTES_A_SECOND: Final = 16000
_TOKENS_A_SECOND: Final = 10
_ENDINGS: Final = ("flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm")
_MAGIC: Final = (
    (0, b"RIFF"),
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"ID3"),
    (0, b"\x1aE\xdf\xa3"),  # WebM
    (4, b"ftyp"),  # MP4
)


@dataclass(frozen=True)
class Heard:
    """An audio file and what is said about it."""

    seconds: float
    text: str

    @property
    def tokens(self) -> Json:
        given, made = max(1, round(self.seconds * _TOKENS_A_SECOND)), text.count(self.text)
        return {
            "type": "tokens",
            "input_tokens": given,
            "input_token_details": {"text_tokens": 0, "audio_tokens": given},
            "output_tokens": made,
            "total_tokens": given + made,
        }

    @property
    def duration(self) -> Json:
        return {"type": "duration", "seconds": math.ceil(self.seconds)}


async def transcriptions(request: web.Request) -> web.StreamResponse:
    """POST /v1/audio/transcriptions"""
    async with form_of(request, _MOST_BYTES) as form:
        body = check_params(form.params(RULES, ("file",)), RULES, ("model",))
        _check(body)
        heard = _heard(form.take("file"), "heard")
    if body.get("stream") and body["model"] != "whisper-1":  # which ignores it
        return await send_events(request, _events(body, heard), done=False)
    return _answer(body, heard, "transcribe")


async def translations(request: web.Request) -> web.StreamResponse:
    """POST /v1/audio/translations"""
    async with form_of(request, _MOST_BYTES) as form:
        rules = TRANSLATION_RULES
        body = check_params(form.params(rules, ("file",)), rules, ("model",))
        heard = _heard(form.take("file"), "heard and translated")
    return _answer(body, heard, "translate")


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/audio/transcriptions", transcriptions),
    ("POST", "/v1/audio/translations", translations),
)


def _check(body: Json) -> None:
    model, wanted = body["model"], body.get("response_format", "json")
    timed = body.get("timestamp_granularities", [])
    for value in timed:
        if value not in ("word", "segment"):
            raise wrong_value("timestamp_granularities", value, ("word", "segment"))
    if timed and wanted != "verbose_json":
        message = "'timestamp_granularities' needs 'response_format' to be 'verbose_json'."
        raise ApiError(400, message, param="timestamp_granularities")
    diarizes = model.endswith("-diarize")
    if model == "whisper-1":
        fits = wanted != "diarized_json"
    elif model.startswith("gpt-4o"):
        fits = wanted in ("json", "text") or (diarizes and wanted == "diarized_json")
    else:
        fits = True
    if not fits:
        raise ApiError(
            400,
            f"response_format '{wanted}' is not compatible with model '{model}'. Use 'json' or "
            "'text' instead.",
            param="response_format",
            code="unsupported_value",
        )


def _heard(upload: Any, how: str) -> Heard:
    """Look into the file and give its space back. Raises ApiError 400."""
    try:
        ending = upload.filename.rpartition(".")[2].lower()
        if ending not in _ENDINGS:
            raise _unsupported(f"Invalid file format. Supported formats: {list(_ENDINGS)}")
        seconds = _seconds(upload.blob)
    finally:
        upload.blob.close()
    if seconds < _LEAST_SECONDS:
        message = "Audio file is too short. Minimum audio length is 0.1 seconds."
        raise ApiError(400, message, param="file", code="audio_too_short")
    return Heard(seconds, f"{text.LABEL} It {how} {seconds:.1f} seconds of audio.")


def _seconds(blob: Blob) -> float:
    head = blob.read(0, 12)
    if head.startswith(b"RIFF"):
        try:
            return sound.read_wav(blob).seconds
        except ValueError as error:
            raise _unsupported(f"Audio file might be corrupted or unsupported: {error}") from None
    known = any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)
    synchronised = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # MPEG audio
    if not known and not synchronised:
        raise _unsupported("Audio file might be corrupted or unsupported")
    return blob.size / _BYTES_A_SECOND


def _unsupported(message: str) -> ApiError:
    return ApiError(400, message, param="file", code="invalid_value")


def _answer(body: Json, heard: Heard, task: str) -> web.Response:
    wanted = body.get("response_format", "json")
    if wanted == "text":
        return web.Response(text=heard.text + "\n")
    if wanted in ("srt", "vtt"):
        return web.Response(text=_subtitles(heard, wanted))
    if wanted == "verbose_json":
        return json_response(_verbose(body, heard, task))
    if wanted == "diarized_json":
        return json_response(_diarized(heard))
    if task == "translate":
        return json_response({"text": heard.text})
    usage = heard.duration if body["model"] == "whisper-1" else heard.tokens
    return json_response({"text": heard.text, **_logprobs(body, heard.text), "usage": usage})


def _subtitles(heard: Heard, wanted: str) -> str:
    comma = "," if wanted == "srt" else "."
    start, end = (_clock(seconds, comma) for seconds in (0.0, heard.seconds))
    head = "1\n" if wanted == "srt" else "WEBVTT\n\n"
    return f"{head}{start} --> {end}\n{heard.text}\n\n"


def _clock(seconds: float, comma: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}{comma}{thousandths:03}"


def _verbose(body: Json, heard: Heard, task: str) -> Json:
    out: Json = {
        "task": task,
        "language": body.get("language", "english"),
        "duration": heard.seconds,
        "text": heard.text,
    }
    timed = body.get("timestamp_granularities", ["segment"])
    if "segment" in timed:
        out["segments"] = [_segment(body, heard)]
    if "word" in timed:
        out["words"] = list(_words(heard))
    return {**out, "usage": heard.duration}


def _segment(body: Json, heard: Heard) -> Json:
    return {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": heard.seconds,
        "text": heard.text,
        "tokens": list(range(text.count(heard.text))),
        "temperature": body.get("temperature", 0.0),
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }


def _words(heard: Heard) -> Iterator[Json]:
    words = heard.text.split()
    length = heard.seconds / len(words)
    for at, word in enumerate(words):
        yield {"word": word.strip(".,"), "start": at * length, "end": (at + 1) * length}


def _diarized(heard: Heard) -> Json:
    return {
        "task": "transcribe",
        "duration": heard.seconds,
        "text": heard.text,
        "segments": [_spoken(heard)],
        "usage": heard.tokens,
    }


def _spoken(heard: Heard) -> Json:
    place = {"id": "seg_0", "start": 0.0, "end": heard.seconds, "speaker": "A"}
    return {"type": "transcript.text.segment", **place, "text": heard.text}


def _logprobs(body: Json, said: str) -> Json:
    if "logprobs" not in body.get("include", []):
        return {}
    pieces = text.tokens(said)
    return {
        "logprobs": [
            {"token": piece, "logprob": -0.1, "bytes": list(piece.encode())} for piece in pieces
        ]
    }


def _events(body: Json, heard: Heard) -> Iterator[Json]:
    """The events of a streamed transcription."""
    for piece in text.tokens(heard.text):
        yield {"type": "transcript.text.delta", "delta": piece, **_logprobs(body, piece)}
    if body.get("response_format") == "diarized_json":
        yield _spoken(heard)
    whole = {"text": heard.text, **_logprobs(body, heard.text), "usage": heard.tokens}
    yield {"type": "transcript.text.done", **whole}
