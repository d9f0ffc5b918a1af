"""What is learnt from the messages of a realtime session."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.exchange.kept import MAX_PAYLOAD
from kong_ai_proxy.exchange.reading import realtime
from kong_ai_proxy.exchange.realtime_reading import RealtimeReading

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
    return realtime(keep=keep, count=count)


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


def test_messages_are_kept_without_sound() -> None:
    reading = session(keep=True)
    created = message("response.create")
    reading.feed_client(message("input_audio_buffer.append", audio="UklGR" * 100))
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


def test_nothing_is_looked_at_unasked() -> None:
    reading = session(count=False)
    reading.feed_client("{}")
    reading.feed_provider(done())
    assert (reading.usage, reading.payload(), reading.request_payload()) == (None, None, None)
