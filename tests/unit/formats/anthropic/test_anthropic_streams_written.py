"""Streams to clients that speak Anthropic's Messages, or its old completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kong_ai_proxy.formats.anthropic import COMPLETE, MESSAGES
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Refusal, Text
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Choice,
    Delta,
    Failed,
    Finished,
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
    collect,
    pieces,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.sse import SseReader
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.strategies import answers, delta_lists, read

CONTEXT = Context(model="gpt-4o", id="a" * 24, now=1_700_000_000)
EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def written(*deltas: Delta) -> bytes:
    """All of a stream, each piece fed for itself."""
    writer = MESSAGES.writer(CONTEXT)
    return b"".join(writer.feed([delta]) for delta in deltas) + writer.end()


def events(data: bytes) -> Iterator[dict[str, Any]]:
    for event in SseReader().feed(data):
        assert event.data is not None
        value = orjson.loads(event.data)
        assert event.name.decode() == value["type"]
        yield value


def client(data: bytes) -> Message:
    """What Anthropic's client makes of a stream, which is also checked for its blocks: one open at
    a time, numbered from 0."""
    message: Any = None
    buffers: dict[int, bytes] = {}
    is_open, index = False, -1
    for value in events(data):
        if value["type"] == "content_block_start":
            assert not is_open
            is_open, index = True, index + 1
        if value["type"].startswith("content_block"):
            assert is_open
            assert value["index"] == index
        is_open = is_open and value["type"] != "content_block_stop"
        event = EVENTS.validate_python(value)
        message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    assert not is_open
    found = message.to_dict()
    for block in found["content"]:
        block.pop("parsed_output", None)
    return Message.model_validate(found)


def content(data: bytes) -> list[dict[str, Any]]:
    return [block.model_dump(exclude_none=True) for block in client(data).content]


def test_text_is_written_in_one_block() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    data = written(
        Started("chatcmpl-1", "gpt-4o-2024"),
        TextPiece("Grüße"),
        TextPiece(' "🌍"'),
        Finished("stop"),
        Used(usage),
    )
    message = client(data)
    assert (message.id, message.model) == ("chatcmpl-1", "gpt-4o-2024")
    assert content(data) == [{"type": "text", "text": 'Grüße "🌍"'}]
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)


def test_the_events_come_in_the_documented_order() -> None:
    data = written(Started("m"), TextPiece("Hi"), Finished("stop"))
    assert [value["type"] for value in events(data)] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_id_and_model_are_made_up_where_the_provider_tells_none() -> None:
    message = client(written(Started(), TextPiece("Hi"), Finished("stop")))
    assert (message.id, message.model) == ("msg_" + "a" * 24, "gpt-4o")


def test_an_answer_of_nothing_is_an_answer() -> None:
    message = client(written())
    assert message.content == []
    assert message.stop_reason == "end_turn"


def test_thoughts_text_and_calls_each_have_a_block() -> None:
    data = written(
        Started("m"),
        ThinkingPiece("Hm"),
        ThinkingPiece("."),
        ThinkingSigned("c2ln"),
        ThinkingRedacted("AAAA"),
        TextPiece("I look."),
        CallStarted(0, "toolu_1", "f"),
        CallArguments(0, '{"a":'),
        CallArguments(0, "[]}"),
        CallStarted(1, "", "g"),
        CallArguments(1, "{}"),
        Finished("tool_calls"),
    )
    assert content(data) == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "AAAA"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": []}},
        {"type": "tool_use", "id": "toolu_" + "a" * 24 + "01", "name": "g", "input": {}},
    ]
    assert client(data).stop_reason == "tool_use"


def test_a_signed_thought_may_have_no_text() -> None:
    data = written(Started("m"), ThinkingPiece(""), ThinkingSigned("c2ln"), Finished("stop"))
    assert content(data) == [{"type": "thinking", "thinking": "", "signature": "c2ln"}]


def test_calls_one_after_another_do_not_wait() -> None:
    writer = MESSAGES.writer(CONTEXT)
    writer.feed([Started("m"), CallStarted(0, "t0", "f"), CallArguments(0, "{}")])
    assert b'"name":"g"' in writer.feed([CallStarted(1, "t1", "g")])
    assert b'"partial_json":"{\\"b\\""' in writer.feed([CallArguments(1, '{"b"')])


def test_interleaved_calls_are_held_back_until_their_block_can_open() -> None:
    data = written(
        Started("m"),
        CallStarted(0, "t0", "f"),
        CallStarted(1, "t1", "g"),
        CallArguments(1, '{"b":'),
        CallArguments(0, '{"a":'),
        CallArguments(1, "2}"),
        CallArguments(0, "1}"),
        TextPiece("Done."),
        Finished("tool_calls"),
    )
    assert content(data) == [
        {"type": "tool_use", "id": "t0", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "t1", "name": "g", "input": {"b": 2}},
        {"type": "text", "text": "Done."},
    ]


def test_text_after_a_call_opens_a_block_of_its_own() -> None:
    data = written(
        Started("m"),
        TextPiece("One"),
        CallStarted(0, "t0", "f"),
        CallArguments(0, '{"a":1}'),
        TextPiece("Two"),
        Finished("tool_calls"),
    )
    assert [block["type"] for block in content(data)] == ["text", "tool_use", "text"]


def test_usage_that_comes_early_stands_in_message_start() -> None:
    writer = MESSAGES.writer(CONTEXT)
    first = writer.feed([Started("m"), Used(Usage(prompt_tokens=9, total_tokens=9))])
    assert b'"input_tokens":9' in first


def test_usage_is_told_in_anthropics_words() -> None:
    usage = Usage(
        prompt_tokens=100,
        completion_tokens=50,
        total_tokens=150,
        prompt_details={"cached_tokens": 30},
        completion_details={"reasoning_tokens": 20},
        cache_writes={"5m": 5, "1h": 7},
        service_tier="default",
    )
    data = written(Started("m"), TextPiece("Hi"), Finished("stop"), Used(usage))
    last = [value for value in events(data) if value["type"] == "message_delta"]
    assert last[0]["usage"] == {
        "input_tokens": 58,
        "cache_creation_input_tokens": 12,
        "cache_read_input_tokens": 30,
        "output_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 7},
        "output_tokens_details": {"thinking_tokens": 20},
        "service_tier": "standard",
    }


@pytest.mark.parametrize(
    ("end", "word"),
    [
        (Finished("stop"), "end_turn"),
        (Finished("stop", "END"), "stop_sequence"),
        (Finished("length"), "max_tokens"),
        (Finished("tool_calls"), "tool_use"),
        (Finished("content_filter"), "refusal"),
    ],
)
def test_each_reason_to_stop_has_anthropics_word(end: Finished, word: str) -> None:
    message = client(written(Started("m"), TextPiece("Hi"), end))
    assert message.stop_reason == word
    assert message.stop_sequence == end.stop_sequence


def test_a_refusal_is_text_and_the_reason() -> None:
    data = written(Started("m"), RefusalPiece("No"), RefusalPiece("."), Finished("stop"))
    assert content(data) == [{"type": "text", "text": "No."}]
    assert client(data).stop_reason == "refusal"


def test_an_image_of_the_models_is_linked() -> None:
    media = Media(kind="image", data="AAAA", media_type="image/png")
    data = written(Started("m"), MediaPiece(media), Finished("stop"))
    assert content(data) == [{"type": "text", "text": "![image](data:image/png;base64,AAAA)"}]


def test_other_alternatives_and_log_probabilities_have_no_place() -> None:
    data = written(
        Started("m"),
        TextPiece("Hi"),
        TextPiece("Ho", 1),
        Logprobs([{}]),
        Finished("length", None, 1),
        Finished("stop"),
    )
    assert content(data) == [{"type": "text", "text": "Hi"}]
    assert client(data).stop_reason == "end_turn"


def test_after_a_failure_there_is_an_error_and_no_good_end() -> None:
    failed = Failed(ProviderError("slow down", "", 429))
    data = written(Started("m"), TextPiece("Hi"), failed, TextPiece("more"), Finished("stop"))
    found = list(events(data))
    assert found[-1] == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "slow down"},
    }
    assert not {"message_delta", "message_stop"} & {value["type"] for value in found}


def test_a_failure_before_anything_else_is_an_error_alone() -> None:
    data = written(Failed(ProviderError("no", "overloaded_error", 529)))
    assert data == (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}'
        b"\n\n"
    )


@given(delta_lists(choices=1, stop_sequences=True))
def test_random_streams_are_well_formed(deltas: list[Delta]) -> None:
    [choice] = collect(deltas).choices or (Choice(),)
    found = content(written(*deltas))
    spoken = [block.text for block in choice.said if isinstance(block, Text | Refusal)]
    if not any(isinstance(delta, MediaPiece) for delta in deltas):
        texts = [block["text"] for block in found if block["type"] == "text"]
        assert "".join(texts) == "".join(spoken)
    used = [block for block in found if block["type"] == "tool_use"]
    assert [(block["name"], block["input"]) for block in used] == [
        (call.name, orjson.loads(call.arguments)) for call in choice.calls
    ]


@given(delta_lists(choices=1), st.data())
def test_how_pieces_are_fed_changes_nothing(deltas: list[Delta], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(deltas)))
    writer = MESSAGES.writer(CONTEXT)
    halves = writer.feed(deltas[:at]) + writer.feed(deltas[at:]) + writer.end()
    assert content(halves) == content(written(*deltas))


@given(answers(choices=1, stop_sequences=True))
def test_a_stream_and_a_whole_answer_tell_the_same(answer: Any) -> None:
    whole: Any = MESSAGES.render_answer(answer, CONTEXT)
    streamed = client(written(*pieces(answer)))
    assert Message.model_validate(whole).model_dump() == streamed.model_dump()


@given(answers(choices=1, refusals=False, media_kinds=(), logprobs=False, call_signatures=False))
def test_what_is_written_is_read_again(answer: Any) -> None:
    again = collect(read(MESSAGES.reader(), [written(*pieces(answer))]))
    assert [_told(choice) for choice in again.choices] == [_told(c) for c in answer.choices]


def _told(choice: Choice) -> object:
    calls = [(call.name, orjson.loads(call.arguments)) for call in choice.calls]
    return choice.text, choice.thinking, calls


def test_an_old_completion_is_streamed_as_events() -> None:
    writer = COMPLETE.writer(CONTEXT)
    data = writer.feed([Started("", "m"), TextPiece("Hi"), TextPiece("!"), Finished("length")])
    found = list(events(data + writer.end()))
    assert [value["completion"] for value in found] == ["Hi", "!", ""]
    assert [value["stop_reason"] for value in found] == [None, None, "max_tokens"]
    assert {value["id"] for value in found} == {"compl_" + "a" * 24}


def test_an_old_completion_that_fails_has_no_good_end() -> None:
    writer = COMPLETE.writer(CONTEXT)
    data = writer.feed([Started("c"), TextPiece("Hi"), Failed(ProviderError("no", "", 500))])
    assert [value["type"] for value in events(data + writer.end())] == ["completion", "error"]
