"""What is learnt from the messages of a realtime session."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.exchange.kept import MAX_PAYLOAD
from kong_ai_proxy.exchange.realtime_reading import MAX_MESSAGE, LiveReading, RealtimeReading

USAGE = {
    "total_tokens": 20,
    "input_tokens": 12,
    "output_tokens": 8,
    "input_token_details": {
        "text_tokens": 2,
        "audio_tokens": 10,
        "cached_tokens": 4,
        "cached_tokens_details": {"audio_tokens": 4},
    },
    "output_token_details": {"text_tokens": 3, "audio_tokens": 5},
}


def message(kind: str, **members: Any) -> str:
    return orjson.dumps({"type": kind, "event_id": "e1", **members}).decode()


def done(**members: Any) -> str:
    response = {"object": "realtime.response", "status": "completed", "usage": USAGE, **members}
    return message("response.done", response=response)


def session(keep: bool = False, count: bool = True) -> RealtimeReading:
    return RealtimeReading(keep=keep, count=count)


def test_usage_is_added_up_over_the_session() -> None:
    reading = session()
    reading.feed_provider(done())
    reading.feed_provider(done())
    assert reading.usage is not None
    assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == (24, 16)
    assert reading.usage.total_tokens == 40
    assert reading.usage.prompt_details == {
        "text_tokens": 4,
        "audio_tokens": 20,
        "cached_tokens": 8,
    }
    assert reading.usage.cached_details == {"audio_tokens": 8}
    assert reading.usage.completion_details == {"text_tokens": 6, "audio_tokens": 10}


@pytest.mark.parametrize("usage", [None, {}, "x"])
def test_an_answer_without_usage_changes_nothing(usage: object) -> None:
    reading = session()
    reading.feed_provider(done())
    reading.feed_provider(done(usage=usage))
    assert reading.usage is not None
    assert reading.usage.total_tokens == 20


@pytest.mark.parametrize("kind", ["session.created", "session.updated"])
def test_the_model_is_the_session_s(kind: str) -> None:
    reading = session()
    reading.feed_provider(message(kind, session={"model": "gpt-realtime"}))
    assert reading.model == "gpt-realtime"


def test_an_answer_that_failed_is_an_error() -> None:
    reading = session()
    details = {"type": "failed", "error": {"message": "overloaded"}}
    reading.feed_provider(done(status="failed", status_details=details))
    assert reading.error == "overloaded"


def test_a_refused_message_of_the_client_s_is_no_error_of_the_session() -> None:
    reading = session()
    reading.feed_provider(message("error", error={"message": "no such event"}))
    assert reading.error is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "response.done",
        '"response.done"',
        '{"type":"response.done"',
        '["response.done"]',
        '{"type":"response.done"}',
        '{"type":"response.done","response":7}',
        '{"type":"x","text":"say \\"response.done\\""}',
        '{"type":"x","name":"response.done","response":{"usage":{"input_tokens":1}}}',
        '{"type":"session.created","session":{"model":7}}',
        '{"type":"session.created","session":null}',
    ],
)
def test_what_is_no_such_message_tells_nothing(text: str) -> None:
    reading = session(keep=True)
    reading.feed_provider(text)
    assert (reading.usage, reading.model, reading.error) == (None, None, None)


@pytest.mark.parametrize("kind", ["input_audio_buffer.append", "session.input_audio_buffer.append"])
def test_messages_are_kept_without_sound(kind: str) -> None:
    reading = session(keep=True)
    created = message("response.create")
    reading.feed_client(message(kind, audio="UklGR" * 100))
    reading.feed_client(created)
    reading.feed_provider(message("response.output_audio.delta", delta="UklGR" * 100))
    reading.feed_provider(done())
    assert reading.request_payload() == created + "\n"
    assert reading.payload() == done() + "\n"


def test_what_is_kept_is_bounded() -> None:
    reading = session(keep=True)
    for _ in range(50):
        reading.feed_client("x" * 50_000)
        reading.feed_provider(done(output="x" * 50_000))
    for payload in (reading.request_payload(), reading.payload()):
        assert payload is not None
        assert MAX_PAYLOAD < len(payload) < MAX_PAYLOAD + 100


@pytest.mark.parametrize(("more", "expected"), [(0, 20), (1, None)])
def test_a_message_that_is_too_long_is_not_parsed(more: int, expected: int | None) -> None:
    reading = session()
    rest = MAX_MESSAGE - len(done(output=""))
    reading.feed_provider(done(output="x" * (rest + more)))
    assert (reading.usage.total_tokens if reading.usage else None) == expected


def test_nothing_is_looked_at_unasked() -> None:
    reading = session(count=False)
    reading.feed_client("{}")
    reading.feed_provider(done())
    assert (reading.usage, reading.payload(), reading.request_payload()) == (None, None, None)


# ---- transcriptions

# source: https://platform.openai.com/docs/api-reference/realtime-server-events (conversation.item.
# input_audio_transcription.completed)
TRANSCRIBED = message(
    "conversation.item.input_audio_transcription.completed",
    item_id="item_1",
    content_index=0,
    transcript="Hey, can you hear me?",
    usage={
        "type": "tokens",
        "total_tokens": 22,
        "input_tokens": 13,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 13},
        "output_tokens": 9,
    },
)
TRANSCRIBER = {"transcription": {"model": "gpt-4o-transcribe"}}
TRANSCRIPTIONS = {
    "today": message(
        "session.created", session={"type": "transcription", "audio": {"input": TRANSCRIBER}}
    ),
    "beta": message(
        "transcription_session.created",
        session={"input_audio_transcription": TRANSCRIBER["transcription"]},
    ),
}


@pytest.mark.parametrize("which", TRANSCRIPTIONS)
def test_a_session_for_transcriptions_has_used_what_they_have(which: str) -> None:
    reading = session(keep=True)
    reading.feed_provider(TRANSCRIPTIONS[which])
    for _ in range(2):
        reading.feed_provider(TRANSCRIBED)
    assert reading.model == "gpt-4o-transcribe"
    assert reading.usage is not None
    assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == (26, 18)
    assert reading.usage.prompt_details == {"text_tokens": 0, "audio_tokens": 26}
    assert reading.payload() == f"{TRANSCRIBED}\n{TRANSCRIBED}\n"


def test_what_a_second_model_transcribes_beside_a_conversation_is_not_the_sessions() -> None:
    reading = session()
    own = {"type": "realtime", "model": "gpt-realtime", "audio": {"input": TRANSCRIBER}}
    reading.feed_provider(message("session.created", session=own))
    reading.feed_provider(TRANSCRIBED)
    assert (reading.usage, reading.model) == (None, "gpt-realtime")
    reading.feed_provider(done())
    assert reading.usage is not None
    assert reading.usage.total_tokens == 20


def test_a_transcription_that_is_billed_by_its_length_has_no_tokens() -> None:
    reading = session()
    reading.feed_provider(TRANSCRIPTIONS["today"])
    reading.feed_provider(TRANSCRIBED.replace('"type":"tokens"', '"type":"duration"'))
    by_length = {"type": "duration", "seconds": 3.2}
    kind = "conversation.item.input_audio_transcription.completed"
    reading.feed_provider(message(kind, usage=by_length))
    assert reading.usage is not None
    assert reading.usage.total_tokens == 22


def test_events_in_binary_frames_count_too() -> None:
    reading = session()
    reading.feed_provider(done().encode())
    assert reading.usage is not None
    assert reading.usage.total_tokens == 20


# ---- Gemini Live


def live(keep: bool = False, count: bool = True) -> LiveReading:
    return LiveReading(keep=keep, count=count)


def told(**members: Any) -> bytes:
    return orjson.dumps(members)


def turn(prompt: int, response: int) -> bytes:
    used = {
        "promptTokenCount": prompt,
        "responseTokenCount": response,
        "totalTokenCount": prompt + response,
    }
    return told(serverContent={"turnComplete": True}, usageMetadata=used)


@pytest.mark.parametrize("binary", [False, True])
def test_the_turns_of_gemini_live_are_added_up(binary: bool) -> None:
    reading = live()
    # source: three turns of gemini-3.1-flash-live-preview, as somebody has seen them:
    # https://github.com/pydantic/pydantic-ai/pull/7269
    for prompt, response in ((143, 19), (181, 24), (224, 24)):
        message = turn(prompt, response)
        reading.feed_provider(message if binary else message.decode())
    assert reading.usage is not None
    assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == (548, 67)
    assert reading.usage.total_tokens == 615
    assert (reading.model, reading.error) == (None, None)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b'"usageMetadata"',
        b'{"usageMetadata"',
        b'["usageMetadata"]',
        b'{"usageMetadata":7}',
        b'{"serverContent":{"usageMetadata":{"promptTokenCount":1}}}',
        b'{"x":"\\"usageMetadata\\""}',
        '{"usageMetadata":',
    ],
)
def test_what_tells_no_usage_counts_nothing(message: bytes | str) -> None:
    reading = live(keep=True)
    reading.feed_provider(message)
    assert reading.usage is None


def test_messages_of_gemini_live_are_kept_without_sound_and_handles() -> None:
    reading = live(keep=True)
    blob = {"mimeType": "audio/pcm", "data": "UklGR" * 100}
    hello = told(clientContent={"turns": [{"parts": [{"text": "hi"}]}]})
    reading.feed_client(told(realtime_input={"audio": blob}).decode())
    reading.feed_client(hello)
    said = told(serverContent={"modelTurn": {"parts": [{"text": "Hello, 東京"}]}})
    reading.feed_provider(told(serverContent={"modelTurn": {"parts": [{"inlineData": blob}]}}))
    reading.feed_provider(told(sessionResumptionUpdate={"newHandle": "secret"}))
    reading.feed_provider(said)
    assert reading.request_payload() == hello.decode() + "\n"
    assert reading.payload() == said.decode() + "\n"


@pytest.mark.parametrize(("more", "expected"), [(0, 7), (1, None)])
def test_a_message_of_gemini_live_that_is_too_long_is_not_parsed(
    more: int, expected: int | None
) -> None:
    reading = LiveReading(keep=False, count=True)
    message = b'{"usageMetadata":{"responseTokenCount":7},"text":"%b"}'
    rest = MAX_MESSAGE - len(message % b"")
    reading.feed_provider(message % (b"x" * (rest + more)))
    assert (reading.usage.completion_tokens if reading.usage else None) == expected


def test_nothing_of_gemini_live_is_looked_at_unasked() -> None:
    reading = live(count=False)
    reading.feed_client("{}")
    reading.feed_provider(turn(1, 1))
    assert (reading.usage, reading.payload(), reading.request_payload()) == (None, None, None)
