"""Whole answers and errors in Anthropic's formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message
from anthropic.types.shared import ErrorResponse
from hypothesis import given

from kong_ai_proxy.formats.anthropic import COMPLETE, MESSAGES
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Refusal, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
    Failed,
    Finished,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.strategies import answers

BODY = json.loads((Path(__file__).parent / "fixtures" / "message.json").read_text())["body"]
CONTEXT = Context(model="gpt-4o", id="a" * 24, now=1_700_000_000)
USAGE = Usage(
    prompt_tokens=142,
    completion_tokens=50,
    total_tokens=192,
    prompt_details={"cached_tokens": 30},
    completion_details={"reasoning_tokens": 20},
    cache_writes={"5m": 5, "1h": 7},
    service_tier="standard",
)


def rendered(*said: Any, **members: Any) -> dict[str, Any]:
    value: Any = MESSAGES.render_answer(Answer(choices=(Choice(said, **members),)), CONTEXT)
    Message.model_validate(value, strict=True)
    return dict(value)


def test_a_message_is_read_block_by_block() -> None:
    assert MESSAGES.parse_answer(BODY) == [
        Started("msg_013Zva", "claude-opus-4-8"),
        ThinkingPiece("Which one?"),
        ThinkingSigned("c2ln"),
        ThinkingRedacted("AAAA"),
        TextPiece("Let me look."),
        CallStarted(0, "toolu_1", "get_weather"),
        CallArguments(0, '{"at":"Bern","days":[]}'),
        CallStarted(1, "toolu_2", "get_time"),
        CallArguments(1, "{}"),
        Finished("tool_calls"),
        Used(USAGE),
    ]


def test_a_message_comes_out_as_it_went_in() -> None:
    again: Any = MESSAGES.render_answer(collect(MESSAGES.parse_answer(BODY)), CONTEXT)
    expected = json.loads(json.dumps(BODY))
    expected["content"][2].pop("citations")
    expected["usage"].pop("server_tool_use")
    assert again == expected


def test_blocks_of_tools_that_the_provider_ran_are_passed_over() -> None:
    content = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Sunny."},
    ]
    found = MESSAGES.parse_answer({**BODY, "content": content, "stop_reason": "end_turn"})
    assert found[1:3] == [TextPiece("Sunny."), Finished("stop")]


def test_calls_that_end_a_turn_otherwise_are_still_calls() -> None:
    found = MESSAGES.parse_answer({**BODY, "stop_reason": "end_turn"})
    assert Finished("tool_calls") in found


def test_a_refusal_is_read() -> None:
    details = {"type": "refusal", "category": None, "explanation": "Not this."}
    body = {**BODY, "content": [], "stop_reason": "refusal", "stop_details": details}
    assert MESSAGES.parse_answer(body)[1:3] == [
        RefusalPiece("Not this."),
        Finished("content_filter"),
    ]


def test_an_error_in_place_of_an_answer_has_failed() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    failed = [Failed(ProviderError("Overloaded", "overloaded_error", 529))]
    assert MESSAGES.parse_answer(error) == failed
    assert COMPLETE.parse_answer(error) == failed


@pytest.mark.parametrize("value", [None, [], "x", {}, {"content": "text"}, {"choices": []}])
def test_what_is_no_answer_is_an_error(value: object) -> None:
    with pytest.raises(FormatError):
        MESSAGES.parse_answer(value)
    with pytest.raises(FormatError):
        COMPLETE.parse_answer(value)


@pytest.mark.parametrize("usage", [None, [], {}, {"input_tokens": None}, {"input_tokens": -1}])
def test_counts_that_are_none_count_nothing(usage: object) -> None:
    found = collect(MESSAGES.parse_answer({**BODY, "usage": usage}))
    assert (found.usage or Usage()).total_tokens == 0


def test_an_answer_has_id_model_and_usage_even_where_nobody_told_them() -> None:
    assert rendered(Text("Hi")) == {
        "id": "msg_" + "a" * 24,
        "type": "message",
        "role": "assistant",
        "model": "gpt-4o",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }


def test_everything_that_was_said_has_its_block() -> None:
    found = rendered(
        Thinking("Hm.", "c2ln"),
        Thinking("", redacted="AAAA"),
        Text("Hi"),
        Refusal("But no."),
        Media(kind="image", url="https://example.com/a.png"),
        ToolCall("", "f", '{"a":[]}'),
        ToolCall("call_1", "g", ""),
        finish_reason="tool_calls",
    )
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "AAAA"},
        {"type": "text", "text": "Hi"},
        {"type": "text", "text": "But no."},
        {"type": "text", "text": "![image](https://example.com/a.png)"},
        {"type": "tool_use", "id": "toolu_" + "a" * 24 + "00", "name": "f", "input": {"a": []}},
        {"type": "tool_use", "id": "call_1", "name": "g", "input": {}},
    ]
    assert found["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "7"])
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str) -> None:
    [block] = rendered(ToolCall("a", "f", arguments))["content"]
    assert block["input"] == {"arguments": arguments}


def test_the_sequence_that_stopped_the_answer_is_told() -> None:
    found = rendered(Text("Hi"), stop_sequence="END")
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")


@given(answers(stop_sequences=True))
def test_every_answer_is_a_message(answer: Answer) -> None:
    Message.model_validate(MESSAGES.render_answer(answer, CONTEXT), strict=True)


# --- errors ---

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
    0: "api_error",
}


@pytest.mark.parametrize(("status", "kind"), TYPES.items())
def test_the_type_of_an_error_follows_its_status(status: int, kind: str) -> None:
    error = MESSAGES.render_error(ProviderError("no", "ThrottlingException", status))
    assert error == {"type": "error", "error": {"type": kind, "message": "no"}}
    if kind not in ("request_too_large", "conflict_error"):  # its client's types leave them out
        ErrorResponse.model_validate(error)


def test_the_type_of_an_anthropic_error_is_kept() -> None:
    error: Any = MESSAGES.render_error(ProviderError("no", "overloaded_error", 503))
    assert error["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            429,
            b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"},'
            b'"request_id":"req_1"}',
            ProviderError("slow", "rate_limit_error", 429),
        ),
        (400, b'{"message":"invalid beta flag"}', ProviderError("invalid beta flag", "", 400)),
        (500, b'{"error":{"type":"api_error"}}', ProviderError("api_error", "api_error", 500)),
        (
            502,
            b"<html>bad</html>",
            ProviderError("the provider answered with status 502", "", 502),
        ),
        (503, b"", ProviderError("the provider answered with status 503", "", 503)),
        (500, b"{}", ProviderError("{}", "", 500)),
        (500, b'{"error":"x"}', ProviderError('{"error":"x"}', "", 500)),
        (500, b"\xff\xfe", ProviderError("\ufffd\ufffd", "", 500)),
    ],
)
def test_errors_of_any_content_are_read(status: int, body: bytes, error: ProviderError) -> None:
    assert MESSAGES.parse_error(status, body) == error
