"""Answers of chat completions that a client gets, whole and streamed, whoever made them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Message, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
    Delta,
    Failed,
    Finished,
    Logprobs,
    MediaPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
    collect,
    pieces,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai.chat import CHAT
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies
from tests.unit.formats.openai import sdk

CONTEXT = Context(model="asked", id="AbC123", now=1700000000)
IMAGE = Media(kind="image", data="AAAA", media_type="image/png")


def written(deltas: list[Delta], context: Context = CONTEXT) -> bytes:
    writer = CHAT.writer(context)
    return b"".join(writer.feed([delta]) for delta in deltas) + writer.end()


def whole(answer: Answer, context: Context = CONTEXT) -> dict[str, Any]:
    value = CHAT.render_answer(answer, context)
    assert isinstance(value, dict)
    return value


def message(answer: Answer, context: Context = CONTEXT) -> dict[str, Any]:
    found: dict[str, Any] = whole(answer, context)["choices"][0]["message"]
    return found


def said(*blocks: Any, reason: Any = "stop") -> Answer:
    return Answer(choices=(Choice(blocks, reason),))


def test_what_the_provider_does_not_tell_is_made_up() -> None:
    value = whole(said(Text("Hi")))
    assert value["id"] == "chatcmpl-AbC123"
    assert value["object"] == "chat.completion"
    assert (value["created"], value["model"]) == (1700000000, "asked")
    (chunk, *_) = sdk.chunks(written([TextPiece("Hi"), Finished("stop")]))
    assert chunk["object"] == "chat.completion.chunk"
    assert {name: chunk[name] for name in ("id", "created", "model")} == {
        name: value[name] for name in ("id", "created", "model")
    }


def test_what_the_provider_tells_stands() -> None:
    value = whole(Answer(id="msg_1", model="claude", created=5, choices=(Choice((Text("a"),)),)))
    assert (value["id"], value["model"], value["created"]) == ("msg_1", "claude", 5)
    (chunk, *_) = sdk.chunks(written([Started("msg_1", "claude", 5), TextPiece("a")]))
    assert (chunk["id"], chunk["model"], chunk["created"]) == ("msg_1", "claude", 5)


def test_content_is_null_beside_calls_alone() -> None:
    answer = said(ToolCall("call_1", "f", "{}"), reason="tool_calls")
    assert message(answer)["content"] is None
    (found,) = sdk.messages(written(list(pieces(answer))))
    assert "content" not in found


def test_text_beside_calls_survives() -> None:
    answer = said(Text("Let me look."), ToolCall("call_1", "f", "{}"), reason="tool_calls")
    assert message(answer)["content"] == "Let me look."
    assert message(answer)["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_calls_without_an_id_get_one_of_their_own() -> None:
    calls = [ToolCall("", "f", "{}"), ToolCall("", "f", "{}")]
    answer = Answer(choices=(Choice(tuple(calls), "tool_calls"), Choice(tuple(calls))))
    ids = [
        call["id"]
        for choice in whole(answer)["choices"]
        for call in choice["message"]["tool_calls"]
    ]
    assert len(set(ids)) == 4
    assert all(each.startswith("call_AbC123") for each in ids)
    streamed = sdk.messages(written(list(pieces(answer))))
    assert [call["id"] for each in streamed for call in each["tool_calls"]] == ids


def test_a_call_without_arguments_has_an_empty_object() -> None:
    deltas: list[Delta] = [CallStarted(0, "call_1", "f"), Finished("tool_calls")]
    (found,) = sdk.messages(written(deltas))
    assert found["tool_calls"][0]["function"]["arguments"] == "{}"


def test_interleaved_arguments_reach_their_calls() -> None:
    deltas: list[Delta] = [
        CallStarted(0, "a", "f"),
        CallStarted(1, "b", "g"),
        CallArguments(1, '{"y":'),
        CallArguments(0, '{"x":'),
        CallArguments(1, "2}"),
        CallArguments(0, "1}"),
        Finished("tool_calls"),
    ]
    (found,) = sdk.messages(written(deltas))
    arguments = [call["function"]["arguments"] for call in found["tool_calls"]]
    assert arguments == ['{"x":1}', '{"y":2}']


def test_a_calls_signature_is_where_google_puts_it() -> None:
    answer = said(ToolCall("a", "f", "{}", signature="c2ln"), reason="tool_calls")
    expected = {"google": {"thought_signature": "c2ln"}}
    assert message(answer)["tool_calls"][0]["extra_content"] == expected
    (found,) = sdk.messages(written(list(pieces(answer))))
    assert found["tool_calls"][0]["extra_content"] == expected


def test_thoughts_have_a_member_of_their_own() -> None:
    answer = said(Thinking("Hm."), Text("Yes."))
    assert message(answer)["reasoning_content"] == "Hm."
    assert message(answer)["content"] == "Yes."
    assert "thinking_blocks" not in message(answer)


def test_thoughts_that_are_a_part_of_the_content_are_thoughts() -> None:
    """https://docs.databricks.com/aws/en/machine-learning/model-serving/score-reason-models"""
    summary = {"type": "summary_text", "text": "The sky scatters.", "signature": "c2ln"}
    content = [{"type": "reasoning", "summary": [summary]}, {"type": "text", "text": "Rayleigh."}]
    told = {"role": "assistant", "content": content}
    answer = {"choices": [{"index": 0, "message": told, "finish_reason": "stop"}]}
    found = collect(CHAT.parse_answer(answer)).choices[0].said
    assert found == (Thinking("The sky scatters.", "c2ln"), Text("Rayleigh."))


def test_a_message_sent_back_keeps_its_signed_thoughts() -> None:
    answer = said(
        Thinking("One.", "c2ln"), Thinking("", redacted="b3A="), Text("Yes."), ToolCall("a", "f")
    )
    for value in (message(answer), sdk.messages(written(list(pieces(answer))))[0]):
        value.pop("finish_reason", None)
        body = {"messages": [{"role": "user", "content": "?"}, value]}
        assert CHAT.parse_request(body).messages[1] == Message("assistant", answer.choices[0].said)


def test_a_signature_without_a_thought_is_kept() -> None:
    (found,) = sdk.messages(written([ThinkingSigned("c2ln"), TextPiece("a"), Finished("stop")]))
    assert found["thinking_blocks"] == [{"type": "thinking", "thinking": "", "signature": "c2ln"}]


def test_a_thought_longer_than_is_held_goes_without_its_signature() -> None:
    writer = CHAT.writer(CONTEXT)
    for _ in range(40):
        writer.feed([ThinkingPiece("x" * 30_000)])
    assert writer.feed([ThinkingSigned("c2ln")]) == b""
    assert b"thinking_blocks" in writer.feed([ThinkingPiece("y"), ThinkingSigned("c2ln")])


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ((Thinking("Hm."), Text("Yes.")), "<thought>Hm.</thought>Yes."),
        ((Thinking("a"), Thinking("b", "c2ln"), Text("c")), "<thought>ab</thought>c"),
        ((Text("a"), Thinking("b"), Text("c")), "a<thought>b</thought>c"),
        ((Thinking("a"), ToolCall("1", "f")), "<thought>a</thought>"),
        ((Thinking("a"),), "<thought>a</thought>"),
    ],
)
def test_thoughts_stand_in_the_text_where_clients_know_them_so(blocks: Any, text: str) -> None:
    answer, context = said(*blocks), CONTEXT._replace(thought_tags=True)
    assert message(answer, context)["content"] == text
    assert "reasoning_content" not in message(answer, context)
    (found,) = sdk.messages(written(list(pieces(answer)), context))
    assert found["content"] == text


def test_an_image_is_a_data_url() -> None:
    expected = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    assert message(said(IMAGE))["images"] == expected
    (found,) = sdk.messages(written([MediaPiece(IMAGE), Finished("stop")]))
    assert found["images"] == expected


def test_log_probabilities_are_told() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    answer = Answer(choices=(Choice((Text("a"),), logprobs=(token,)),))
    assert whole(answer)["choices"][0]["logprobs"] == {"content": [token], "refusal": None}
    chunks = sdk.chunks(written([TextPiece("a"), Logprobs([token]), Finished("stop")]))
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [each["content"] for each in told if each] == [[token]]


USAGE = Usage(
    prompt_tokens=30,
    completion_tokens=5,
    total_tokens=35,
    prompt_details={"cached_tokens": 10, "cache_write_tokens": 5},
    completion_details={"reasoning_tokens": 2},
    cache_writes={"5m": 4, "": 1},
)
USED = {
    "prompt_tokens": 30,
    "completion_tokens": 5,
    "total_tokens": 35,
    "prompt_tokens_details": {
        "cached_tokens": 10,
        "cache_write_tokens": 5,
        "cache_write_tokens_details": {"ttl_5m_tokens": 4},
    },
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def test_usage_is_told_with_its_details() -> None:
    answer = Answer(choices=(Choice((Text("a"),)),), usage=USAGE)
    assert whole(answer)["usage"] == USED
    assert collect(CHAT.parse_answer(whole(answer))).usage == USAGE


def test_a_stream_tells_its_usage_once_and_last_where_it_is_asked_for() -> None:
    deltas: list[Delta] = [Used(Usage(prompt_tokens=1)), TextPiece("a"), Finished("stop")]
    deltas.append(Used(USAGE))
    *others, last = sdk.chunks(written(deltas, CONTEXT._replace(wants_usage=True)))
    assert last["choices"] == []
    assert last["usage"] == USED
    assert all(chunk["usage"] is None for chunk in others)


def test_a_stream_tells_no_usage_unasked() -> None:
    chunks = sdk.chunks(written([TextPiece("a"), Finished("stop"), Used(USAGE)]))
    assert not any("usage" in chunk for chunk in chunks)


def test_a_stream_that_failed_ends_with_the_error() -> None:
    writer = CHAT.writer(CONTEXT)
    writer.feed([TextPiece("a")])
    error = ProviderError("Overloaded", "overloaded_error", 529)
    event = writer.feed([Failed(error), TextPiece("b"), Finished("stop")])
    assert event.startswith(b"data: ")
    assert event.endswith(b"}}\n\n")
    assert orjson.loads(event[6:]) == {
        "error": {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}
    }
    assert writer.feed([TextPiece("c")]) == b""
    assert writer.end() == b""


@pytest.mark.parametrize("deltas", [[], [Started("a", "m", 1)], [Started(), Finished("stop")]])
def test_an_empty_answer_is_well_formed(deltas: list[Delta]) -> None:
    assert sdk.messages(written(deltas)) == [
        {"role": "assistant", "content": "", "finish_reason": "stop"}
    ]
    value = whole(collect(deltas))
    sdk.check_chat_answer(value)
    assert value["choices"][0]["message"]["content"] == ""


def test_what_comes_after_the_end_of_a_choice_is_left_out() -> None:
    late: list[Delta] = [
        TextPiece("b"),
        ThinkingPiece("b"),
        ThinkingRedacted("b"),
        CallStarted(0, "", "f"),
        CallArguments(0, "{}"),
        MediaPiece(IMAGE),
        Logprobs([]),
        Finished("length"),
    ]
    (found,) = sdk.messages(written([TextPiece("a"), Finished("stop"), *late]))
    assert found == {"role": "assistant", "content": "a", "finish_reason": "stop"}


@given(strategies.delta_lists(assistant_media=True))
def test_a_stream_tells_what_the_whole_answer_tells(deltas: list[Delta]) -> None:
    value = whole(collect(deltas))
    sdk.check_chat_answer(value)
    expected = [
        {**choice["message"], "finish_reason": choice["finish_reason"]}
        for choice in value["choices"]
    ]
    found = sdk.messages(written(deltas))
    assert found == [{k: v for k, v in each.items() if v is not None} for each in expected]


# Blocks of one kind that others part come together, texts before calls: that is the format's.
ORDERED = {"free_order": False, "several_texts": False, "stop_sequences": False}


@given(strategies.answers(**ORDERED, thinking=False))
def test_an_answer_that_is_written_and_read_is_the_same(answer: Answer) -> None:
    value = orjson.loads(orjson.dumps(whole(answer)))
    assert collect(CHAT.parse_answer(value)) == answer


@given(strategies.answers(**ORDERED, unsigned=False, refusals=False))
def test_signed_thoughts_that_are_written_and_read_are_the_same(answer: Answer) -> None:
    assert collect(CHAT.parse_answer(orjson.loads(orjson.dumps(whole(answer))))) == answer


@given(strategies.delta_lists(**ORDERED, thinking=False))
def test_a_stream_that_is_written_and_read_is_the_same(deltas: list[Delta]) -> None:
    data = written(deltas, CONTEXT._replace(wants_usage=True))
    assert collect(strategies.read(CHAT.reader(), [data])) == collect(deltas)


@pytest.mark.parametrize("value", [None, [], "text", {}, {"choices": None}, {"choices": {}}])
def test_what_is_no_answer_is_refused(value: object) -> None:
    with pytest.raises(FormatError, match="'choices' not in llm/v1/chat response"):
        CHAT.parse_answer(value)


def test_an_error_in_place_of_an_answer_is_one() -> None:
    (failed,) = CHAT.parse_answer({"error": {"message": "no", "type": "server_error"}})
    assert failed == Failed(ProviderError("no", "server_error", 500))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("model_length", "length"),
        ("eos_token", "stop"),
        (None, "stop"),
    ],
)
def test_finish_reasons_are_openais(told: str | None, expected: str) -> None:
    value = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": told}]}
    assert collect(CHAT.parse_answer(value)).choices[0].finish_reason == expected


def test_an_answer_that_stopped_for_its_calls_says_so() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = {"message": {"content": None, "tool_calls": [call]}, "finish_reason": "stop"}
    deltas = CHAT.parse_answer({"choices": [choice]})
    assert collect(deltas).choices[0].finish_reason == "tool_calls"
