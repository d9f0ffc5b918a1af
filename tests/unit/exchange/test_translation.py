"""Answers that change their format: when the client gets a head, what is held until then, and what
becomes of answers that are not what was asked for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from kong_ai_proxy.exchange import translation
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import (
    Abort,
    Commit,
    Data,
    Emit,
    End,
    Fail,
    Finish,
    Head,
    ResponseHead,
)
from tests.integration.known_text_vendors import VENDORS
from tests.providers import ToolCall, Turn
from tests.unit.exchange.known_text_exchange import Client, Exchange, Json

CLAUDE = VENDORS["anthropic"]
HELLO: Json = {"messages": [{"role": "user", "content": "Hello"}]}
STREAM: Json = {**HELLO, "stream": True}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
SSE = "text/event-stream"


def frames(turn: Turn, body: Json = STREAM) -> list[bytes]:
    """What Anthropic streams, event by event."""
    found = Exchange(CLAUDE, body).judged(CLAUDE, turn).frames
    assert found is not None
    return list(found)


def message(text: str = "One two.") -> bytes:
    """The same as one answer."""
    return Exchange(CLAUDE, HELLO).judged(CLAUDE, Turn(text=text)).body


def streaming(body: Json = STREAM, **headers: Any) -> Exchange:
    """A stream has begun at the provider."""
    exchange = Exchange(CLAUDE, body)
    exchange.head(content_type=SSE, **headers)
    return exchange


def text_of(client: Client) -> str:
    choices = [each.get("choices") for each in client.events if isinstance(each, dict)]
    return "".join(each[0]["delta"].get("content") or "" for each in choices if each)


# ---- when the client gets a head


@pytest.mark.parametrize(
    "turn",
    [
        Turn(text="One two."),
        Turn(tool_calls=[ToolCall("add", {"a": 1})]),
        Turn(thinking="Hm, well.", text="One."),
    ],
    ids=["text", "call", "thought"],
)
def test_the_head_waits_for_the_first_content(turn: Turn) -> None:
    exchange = streaming({**STREAM, "tools": TOOLS})
    events = frames(turn, {**STREAM, "tools": TOOLS})
    seen = []
    for event in events:
        exchange.data(event)
        seen.append(exchange.client.status)
    first = seen.index(200)
    assert b"message_start" in events[0]
    assert 0 < first < len(events) - 2
    assert any(name in events[first] for name in (b"text_delta", b'"thinking"', b"tool_use"))
    assert exchange.client.pieces[0].startswith(b"data: ")
    assert b'"role":"assistant"' in exchange.client.pieces[0]  # what was held comes first


def test_an_answer_without_any_content_is_committed_at_its_end() -> None:
    exchange = streaming()
    exchange.data(*frames(Turn(text="")))
    assert exchange.client.status == 0
    client = exchange.end()
    assert (client.status, client.events[-1]) == (200, b"[DONE]")
    assert isinstance(client.ending, Finish)


@pytest.mark.parametrize(("most", "status"), [(64 << 10, 500), (10, 200)])
def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch, most: int, status: int) -> None:
    """Where more comes before any content, the head goes, and an error is an event."""
    monkeypatch.setattr(translation, "MAX_HELD", most)
    vendor = VENDORS["openai"]
    body = {**STREAM, "max_tokens": 9}
    exchange = Exchange(vendor, body, llm_format="anthropic", path="/v1/messages")
    reply = exchange.judged(vendor, Turn(stream_error="Overloaded", error_after=1))
    assert reply.frames is not None
    exchange.head(content_type=SSE)
    exchange.data(*reply.frames)
    client = exchange.end()
    assert client.status == status
    assert (b'"message_start"' in client.body) == (status == 200)
    assert b"Overloaded" in client.body


def test_what_tells_of_the_providers_body_does_not_reach_the_client() -> None:
    exchange = streaming(
        etag='"1"', content_length="12", set_cookie="a=b", x_request_id="one", content_md5="x"
    )
    exchange.data(*frames(Turn(text="One.")))
    headers = exchange.end().headers
    assert headers["x-request-id"] == "one"
    assert headers["content-type"] == SSE
    assert headers.keys().isdisjoint({"etag", "content-length", "set-cookie", "content-md5"})


# ---- one-shot and streams


def test_a_whole_answer_for_who_asked_for_a_stream_is_a_stream() -> None:
    """Some servers do not know `stream`."""
    exchange = Exchange(CLAUDE, {**STREAM, "stream_options": {"include_usage": True}})
    exchange.head(content_type="application/json")
    exchange.data(message())
    client = exchange.end()
    assert client.headers["content-type"] == SSE
    assert text_of(client) == "One two."
    assert client.events[-2]["usage"]["total_tokens"] == 18
    assert client.events[-1] == b"[DONE]"


def test_a_stream_for_who_asked_for_a_whole_answer_is_one() -> None:
    """Some servers know nothing else."""
    exchange = Exchange(CLAUDE, HELLO)
    exchange.head(content_type=SSE)
    exchange.data(*frames(Turn(text="One two.")))
    assert exchange.client.status == 0
    client = exchange.end()
    assert client.headers["content-type"] == "application/json"
    assert client.length == len(client.body)
    assert client.json["choices"][0]["message"]["content"] == "One two."
    assert client.json["usage"]["total_tokens"] == 18


def test_an_error_in_a_stream_that_is_gathered_is_a_status() -> None:
    exchange = Exchange(CLAUDE, HELLO)
    exchange.head(content_type=SSE)
    exchange.data(*frames(Turn(text="One two.", stream_error="Overloaded", error_after=4)))
    client = exchange.end()
    assert (client.status, client.json["error"]["message"]) == (529, "Overloaded")


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_is_the_whole_of_a_200_is_a_status(stream: bool) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}
    exchange = Exchange(CLAUDE, {**HELLO, "stream": stream})
    exchange.head(content_type="application/json")
    exchange.data(orjson.dumps(error))
    client = exchange.end()
    assert (client.status, client.json["error"]["message"]) == (429, "Slow down.")


# ---- answers that cannot be read


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"type":"message"', b"\xff", b"null"])
def test_a_200_that_is_no_answer_is_an_error_with_kongs_text(body: bytes, stream: bool) -> None:
    exchange = Exchange(CLAUDE, {**HELLO, "stream": stream})
    exchange.head(content_type="application/json")
    exchange.data(*([body] if body else []))
    client = exchange.end()
    assert client.status == 500
    expected = "transformation failed from type anthropic://llm/v1/chat: "
    assert client.json["error"]["message"].startswith(expected)
    assert exchange.attempt.answer is not None


@pytest.mark.parametrize("content_type", ["application/json", SSE])
def test_an_answer_that_is_too_long_is_an_error(
    monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    monkeypatch.setattr(translation, "MAX_WHOLE", 300)
    exchange = Exchange(CLAUDE, HELLO)
    exchange.head(content_type=content_type)
    data = message() if content_type != SSE else b"".join(frames(Turn(text="One two.")))
    exchange.data(data[:200])
    assert exchange.client.status == 0
    exchange.data(data[200:])
    client = exchange.client
    assert (client.status, type(client.ending)) == (502, Finish)
    assert client.json["error"]["message"] == "the provider's answer is longer than 300 bytes"


def test_only_so_much_of_an_error_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "MAX_ERROR", 100)
    exchange = Exchange(CLAUDE, HELLO)
    exchange.head(500, content_type="text/plain")
    for _ in range(100):
        exchange.data(b"x" * 50)
    client = exchange.end()
    assert client.status == 500
    assert len(client.body) < 1000


def test_a_content_coding_that_is_unknown_is_refused_with_its_name() -> None:
    exchange = Exchange(CLAUDE, STREAM)
    exchange.head(content_type=SSE, content_encoding="zstd")
    failed = exchange.client.ending
    assert isinstance(failed, Fail)
    assert failed.criterion == "invalid_header"
    assert failed.answer.status == 502
    assert "zstd" in failed.answer.message


def test_a_body_that_is_not_what_its_coding_says_is_an_error_before_content() -> None:
    exchange = streaming(content_encoding="gzip")
    exchange.data(b"event: message_start\n")
    client = exchange.client
    assert client.status == 502
    assert "content-encoding" in client.json["error"]["message"]


def test_a_coding_that_breaks_off_after_content_is_an_error_event() -> None:
    exchange = streaming(content_encoding="gzip")
    whole = gzip.compress(b"".join(frames(Turn(text="One two three."))))
    exchange.data(whole[:-12])
    client = exchange.end()
    assert text_of(client).startswith("One")
    assert "content-encoding" in client.events[-1]["error"]["message"]
    assert b"[DONE]" not in client.body


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_that_ends_without_its_last_event_is_not_complete(stream: bool) -> None:
    exchange = Exchange(CLAUDE, {**HELLO, "stream": stream})
    exchange.head(content_type=SSE)
    exchange.data(*frames(Turn(text="One two."))[:-2])
    client = exchange.end()
    if stream:
        assert client.events[-1]["error"]["message"]
        assert b"[DONE]" not in client.body
    else:
        assert client.status == 502


# ---- connections that break off


@pytest.mark.parametrize(
    ("criterion", "status"), [("error", 502), ("timeout", 504), ("invalid_header", 502)]
)
def test_a_provider_lost_before_content_leaves_the_target_to_be_changed(
    criterion: str, status: int
) -> None:
    """Nothing was committed: whoever drives it may ask another target."""
    exchange = streaming()
    exchange.data(frames(Turn(text="One."))[0])
    client = exchange.lost(criterion)
    assert client.status == 0
    assert isinstance(client.ending, Fail)
    assert (client.ending.criterion, client.ending.answer.status) == (criterion, status)


def test_a_provider_lost_after_content_is_an_error_event_and_no_end() -> None:
    exchange = streaming()
    exchange.data(*frames(Turn(text="One two."))[:4])
    client = exchange.lost()
    assert isinstance(client.ending, Abort)
    assert client.events[-1]["error"]["message"] == "the provider's answer broke off"
    assert exchange.attempt.answer is not None
    assert exchange.attempt.answer.failure == "connection reset"


@pytest.mark.parametrize("content_type", ["application/json", SSE])
def test_a_provider_lost_amid_an_answer_in_one_piece_has_not_answered(content_type: str) -> None:
    """However much of it has come: the client has nothing yet."""
    exchange = Exchange(CLAUDE, HELLO)
    exchange.head(content_type=content_type)
    data = message() if content_type != SSE else b"".join(frames(Turn(text="One two.")))
    exchange.data(data[: len(data) * 3 // 4])
    client = exchange.lost()
    assert client.status == 0
    assert isinstance(client.ending, Fail)


def test_nothing_follows_the_end() -> None:
    exchange = streaming()
    exchange.data(*frames(Turn(text="One.", stream_error="Overloaded", error_after=0)))
    answer = exchange.attempt.answer
    assert answer is not None
    assert isinstance(exchange.client.ending, Finish)
    assert list(answer.feed(Data(b"data: {}\n\n"))) == []
    assert list(answer.feed(End())) == []


# ---- what is learnt meanwhile


def test_usage_model_and_payload_are_known_of_a_converted_stream() -> None:
    logging = {"log_statistics": True, "log_payloads": True}
    exchange = Exchange(CLAUDE, STREAM, logging=logging)
    exchange.head(content_type=SSE)
    exchange.data(*frames(Turn(text="One two.")))
    exchange.end()
    reading = exchange.attempt.reading
    assert reading is not None
    assert reading.usage is not None
    assert (reading.usage.total_tokens, reading.model) == (18, CLAUDE.model)
    payload: Any = orjson.loads(reading.payload() or "")
    assert payload["choices"][0]["message"]["content"] == "One two."


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_stream_without_usage_gets_an_estimate(client: str) -> None:
    """OpenAI's clients only where they ask for it; Anthropic's always have one."""
    body = {**STREAM, "stream_options": {"include_usage": True}, "max_tokens": 9}
    vendor = VENDORS["openai" if client == "anthropic" else "ollama"]
    exchange = Exchange(vendor, body, llm_format=client, path="/v1/messages")
    if client == "anthropic":
        exchange.head(content_type=SSE)
        exchange.data(*_without_usage())
    else:
        exchange.head(content_type="application/x-ndjson")
        told = {"model": "m", "message": {"role": "assistant", "content": "One two"}}
        exchange.data(orjson.dumps({**told, "done": False}) + b"\n")
        exchange.data(orjson.dumps({"model": "m", "done": True, "done_reason": "stop"}) + b"\n")
    found = exchange.end()
    assert found.status == 200
    assert exchange.attempt.usage is not None
    assert exchange.attempt.usage.estimated
    assert exchange.attempt.usage.completion_tokens > 0
    if client == "openai":
        assert found.events[-2]["usage"]["completion_tokens"] > 0


def _without_usage() -> Iterator[bytes]:
    for delta, reason in (({"role": "assistant", "content": "One two"}, None), ({}, "stop")):
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        yield b"data: " + orjson.dumps({"id": "1", "choices": choices}) + b"\n\n"
    yield b"data: [DONE]\n\n"


# ---- what goes up


OPTIONS: Json = {"temperature": 0.1, "top_p": 0.2, "top_k": 3, "max_tokens": 77}


def test_the_configuration_has_defaults_and_the_request_wins() -> None:
    body = {**HELLO, "temperature": 0.9, "top_p": None}
    sent = Exchange(VENDORS["gemini"], body, options=OPTIONS).sent.json
    expected = {"temperature": 0.9, "topP": 0.2, "topK": 3, "maxOutputTokens": 77}
    assert sent["generationConfig"] == expected
    more = {**HELLO, "max_completion_tokens": 5}
    assert Exchange(CLAUDE, more, options=OPTIONS).sent.json["max_tokens"] == 5


def test_extra_body_is_merged_in_and_brings_neither_model_nor_stream() -> None:
    extra = {
        "model": "another",
        "stream": True,
        "stream_options": {"a": 1},
        "generationConfig": {"topK": 7},
    }
    body = {**HELLO, "temperature": 0.5, "extra_body": extra}
    exchange = Exchange(VENDORS["gemini"], body)
    assert exchange.sent.path.endswith("gemini-2.5-flash:generateContent")
    assert exchange.sent.json["generationConfig"] == {"temperature": 0.5, "topK": 7}
    assert exchange.sent.json.keys() == {"contents", "generationConfig"}


def test_content_that_cannot_be_carried_over_is_refused_with_its_place() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with pytest.raises(Refused) as refused:
        Exchange(CLAUDE, {"messages": [{"role": "user", "content": [part]}]})
    assert refused.value.status == 400
    assert "messages[0].content[0]" in refused.value.message
    assert "anthropic://llm/v1/chat" in refused.value.message


def test_an_answer_is_read_as_lazily_as_its_actions_are_asked_for() -> None:
    """A bomb of 64 MB in 64 kB costs nothing while nobody asks."""
    exchange = Exchange(CLAUDE, STREAM)
    head = ResponseHead(200, (("content-type", SSE), ("content-encoding", "gzip")))
    assert list(exchange.attempt.feed(Head(head))) == []
    event = frames(Turn(text="One."))
    bomb = gzip.compress(b"".join(event[:3]) + event[3] * 200_000, 9)
    actions = exchange.attempt.feed(Data(bomb))
    first, second = next(actions), next(actions)
    assert isinstance(first, Commit)
    assert isinstance(second, Emit)
    assert len(second.chunk) < 1 << 20
