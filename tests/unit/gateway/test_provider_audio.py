"""Speech, transcriptions and translations of the stand-in provider."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import wave
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.audio import (
    speech_create_params,
    transcription_create_params,
    translation_create_params,
)

from kong_ai_proxy.gateway.provider import sound, speech, transcriptions
from kong_ai_proxy.gateway.provider.blob import Blob
from tests.unit.gateway.provider_client import client, plain

# OpenAI's client calls this operation deprecated.
_DEPRECATED = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
_SAY: Any = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "One two three four five"}


def _wav(seconds: float = 1.5) -> tuple[str, bytes]:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(round(8000 * seconds) * 4))
    return "speech.wav", file.getvalue()


# -- speech ----------------------------------------------------------------------------------------


def test_speech_knows_every_parameter_of_the_official_client() -> None:
    official = speech_create_params.SpeechCreateParams.__annotations__
    assert official.keys() == speech.RULES.keys()


@pytest.mark.parametrize(
    ("name", "content_type", "begins"),
    [
        (None, "audio/mpeg", b"\xff\xfb"),
        ("mp3", "audio/mpeg", b"\xff\xfb"),
        ("opus", "audio/opus", b"OggS"),
        ("aac", "audio/aac", b"\xff\xf1"),
        ("flac", "audio/flac", b"fLaC"),
        ("wav", "audio/wav", b"RIFF"),
        ("pcm", "audio/pcm", b"\x00\x00"),
    ],
)
async def test_speech_comes_in_each_format(name: Any, content_type: str, begins: bytes) -> None:
    wanted: Any = {"response_format": name} if name else {}
    async with client() as official:
        answer = await official.audio.speech.create(**_SAY, **wanted)
    assert answer.response.headers["content-type"] == content_type
    assert answer.content.startswith(begins)


async def test_spoken_wav_is_as_long_as_its_words() -> None:
    async with client() as official:
        slow = await official.audio.speech.create(**_SAY, response_format="wav", speed=0.5)
        raw = await official.audio.speech.create(**_SAY, response_format="pcm")
    with wave.open(io.BytesIO(slow.content)) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (24000, 1, 2)
        assert read.getnframes() / 24000 == pytest.approx(1.0)
        assert any(read.readframes(2400))
    assert len(raw.content) == 24000


async def test_speech_can_be_streamed_to_a_file(tmp_path: Path) -> None:
    async with (
        client() as official,
        official.audio.speech.with_streaming_response.create(**_SAY) as answer,
    ):
        await answer.stream_to_file(tmp_path / "speech.mp3")
    assert (tmp_path / "speech.mp3").read_bytes().startswith(b"\xff\xfb")


async def test_speech_as_events_holds_the_same_sound() -> None:
    async with plain() as http:
        whole = await http.post("/v1/audio/speech", json={**_SAY, "response_format": "wav"})
        answer = await http.post(
            "/v1/audio/speech", json={**_SAY, "response_format": "wav", "stream_format": "sse"}
        )
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    *deltas, done = events
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == whole.content
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert done["type"] == "speech.audio.done"
    assert done["usage"] == {"input_tokens": 5, "output_tokens": 10, "total_tokens": 15}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "x" * 4097}, "input"),
        ({"input": None}, "input"),
        ({"voice": None}, "voice"),
        ({"voice": "robot"}, "voice"),
        ({"voice": {}}, "voice.id"),
        ({"response_format": "midi"}, "response_format"),
        ({"speed": 5}, "speed"),
        ({"stream_format": "sse", "model": "tts-1"}, "stream_format"),
        ({"language": "en"}, None),
    ],
)
async def test_wrong_speech_requests(change: dict[str, Any], param: str | None) -> None:
    async with plain() as http:
        answer = await http.post("/v1/audio/speech", json={**_SAY, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (sound.mp3(1), "MPEG ADTS, layer III, v1"),
        (sound.aac(1), "MPEG ADTS, AAC"),
        (sound.flac(1), "FLAC audio bitstream data, 16 bit, mono, 24 kHz"),
        (sound.opus(1), "Ogg data, Opus audio"),
        (sound.wav(sound.samples("a")), "WAVE audio, Microsoft PCM, 16 bit, mono 24000 Hz"),
    ],
)
def test_file_knows_the_formats(made: bytes, said: str, tmp_path: Path) -> None:
    if not Path("/usr/bin/file").exists():
        pytest.skip("no /usr/bin/file here")
    (tmp_path / "sound").write_bytes(made)
    found = subprocess.run(
        ["/usr/bin/file", "-b", tmp_path / "sound"], capture_output=True, text=True, check=True
    )
    assert said in found.stdout


# -- transcriptions --------------------------------------------------------------------------------


def test_transcriptions_know_every_parameter_of_the_official_client() -> None:
    official = transcription_create_params.TranscriptionCreateParamsBase.__annotations__
    assert official.keys() - {"file"} | {"stream"} == transcriptions.RULES.keys()
    official = translation_create_params.TranslationCreateParams.__annotations__
    assert official.keys() - {"file"} == transcriptions.TRANSLATION_RULES.keys()


async def test_a_transcription_says_how_much_was_heard() -> None:
    async with client() as official:
        answer: Any = await official.audio.transcriptions.create(
            file=_wav(), model="gpt-4o-transcribe", include=["logprobs"]
        )
    assert "heard 1.5 seconds" in answer.text
    assert answer.usage.type == "tokens"
    assert answer.usage.input_tokens == 15
    assert "".join(item.token for item in answer.logprobs) == answer.text


async def test_whisper_counts_seconds() -> None:
    async with client() as official:
        answer: Any = await official.audio.transcriptions.create(file=_wav(), model="whisper-1")
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 2)


async def test_a_verbose_transcription_has_segments_and_words() -> None:
    async with client() as official:
        answer = await official.audio.transcriptions.create(
            file=_wav(),
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert answer.duration == 1.5
    assert answer.segments is not None
    assert answer.segments[0].end == 1.5
    assert answer.words is not None
    assert answer.words[0].word == "This"
    assert answer.words[-1].end == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("wanted", "begins"),
    [
        ("text", "This is the stand-in"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\nThis"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nThis"),
    ],
)
async def test_a_transcription_can_be_text(wanted: Any, begins: str) -> None:
    async with client() as official:
        answer: Any = await official.audio.transcriptions.create(
            file=_wav(), model="whisper-1", response_format=wanted
        )
    assert answer.startswith(begins)


async def test_a_transcription_can_name_speakers() -> None:
    async with client() as official:
        answer: Any = await official.audio.transcriptions.create(
            file=_wav(),
            model="gpt-4o-transcribe-diarize",
            response_format="diarized_json",
            chunking_strategy="auto",
        )
    assert answer.segments[0].speaker == "A"


async def test_a_streamed_transcription_is_the_same_text() -> None:
    async with client() as official:
        whole: Any = await official.audio.transcriptions.create(
            file=_wav(), model="gpt-4o-transcribe"
        )
        stream = await official.audio.transcriptions.create(
            file=_wav(), model="gpt-4o-transcribe", stream=True
        )
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == whole.text
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.text == whole.text
    assert last.usage is not None
    assert last.usage.total_tokens == whole.usage.total_tokens


async def test_whisper_does_not_stream() -> None:
    async with plain() as http:
        answer = await http.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1", "stream": "true"},
            files={"file": _wav()},
        )
    assert answer.headers["content-type"] == "application/json"


@_DEPRECATED
@pytest.mark.parametrize("wanted", ["json", "text", "srt", "verbose_json", "vtt"])
async def test_a_translation_comes_in_each_format(wanted: Any) -> None:
    async with client() as official:
        answer: Any = await official.audio.translations.create(
            file=_wav(), model="whisper-1", response_format=wanted
        )
    said = answer if isinstance(answer, str) else answer.text
    assert "heard and translated 1.5 seconds" in said


@pytest.mark.parametrize("wanted", ["mp3", "opus", "aac", "flac", "wav"])
async def test_what_was_spoken_can_be_heard(wanted: Any) -> None:
    ending = "ogg" if wanted == "opus" else "mp3" if wanted == "aac" else wanted
    async with client() as official:
        said = await official.audio.speech.create(
            **{**_SAY, "input": "a " * 500}, response_format=wanted
        )
        file = (f"a.{ending}", said.content)
        if len(said.content) < 1600:
            file = (file[0], said.content * 10)
        answer: Any = await official.audio.transcriptions.create(file=file, model="whisper-1")
    assert "seconds of audio" in answer.text


@pytest.mark.parametrize(
    ("data", "file", "param"),
    [
        ({}, _wav(), None),
        ({"model": "m"}, None, "file"),
        ({"model": "m"}, ("a.wav", b""), "file"),
        ({"model": "m"}, ("a.wav", b"RIFF1234WAVE"), "file"),
        ({"model": "m"}, ("a.wav", _wav()[1][:30]), "file"),
        ({"model": "m"}, ("a.wav", b"no sound"), "file"),
        ({"model": "m"}, ("a.txt", _wav()[1]), "file"),
        ({"model": "m"}, _wav(0.05), "file"),
        ({"model": "m", "temperature": "warm"}, _wav(), "temperature"),
        ({"model": "m", "temperature": "2"}, _wav(), "temperature"),
        ({"model": "m", "stream": "yes"}, _wav(), "stream"),
        ({"model": "m", "response_format": "xml"}, _wav(), "response_format"),
        ({"model": "gpt-4o-transcribe", "response_format": "srt"}, _wav(), "response_format"),
        ({"model": "whisper-1", "response_format": "diarized_json"}, _wav(), "response_format"),
        ({"model": "m", "timestamp_granularities[]": "word"}, _wav(), "timestamp_granularities"),
        (
            {
                "model": "m",
                "timestamp_granularities[]": "letter",
                "response_format": "verbose_json",
            },
            _wav(),
            "timestamp_granularities",
        ),
        ({"model": "m", "voice": "alloy"}, _wav(), None),
    ],
)
async def test_wrong_transcription_requests(
    data: dict[str, str], file: Any, param: str | None
) -> None:
    parts = {name: (None, value.encode()) for name, value in data.items()}
    async with plain() as http:
        answer = await http.post(
            "/v1/audio/transcriptions", files={**parts, **({"file": file} if file else {})}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_twenty_five_megabytes_are_heard_and_no_more() -> None:
    name, data = _wav()
    fits = data.ljust(25 * 1024 * 1024, b"\0")
    async with client() as official:
        assert await official.audio.transcriptions.create(file=(name, fits), model="whisper-1")
        with pytest.raises(openai.APIStatusError) as raised:
            await official.audio.transcriptions.create(file=(name, fits + b"\0"), model="whisper-1")
    assert raised.value.status_code == 413


@_DEPRECATED
async def test_a_model_name_asks_for_an_error_in_a_form_too() -> None:
    async with client() as official:
        with pytest.raises(openai.RateLimitError):
            await official.audio.translations.create(file=_wav(), model="error-429")


def test_a_wav_file_of_unknown_length_is_read_to_its_end() -> None:
    _, data = _wav(1)
    at = data.index(b"data") + 4
    blob = Blob(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
    assert sound.read_wav(blob) == sound.Wav(2, 8000, 1.0)
    blob.close()
