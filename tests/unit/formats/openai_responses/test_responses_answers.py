"""Whole answers and errors of OpenAI's Responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import (
    Media,
    Message,
    Refusal,
    Text,
    Thinking,
    ToolCall,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    Choice,
    Failed,
    FinishReason,
    Said,
    collect,
    pieces,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai.responses import RESPONSES
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies
from tests.unit.formats.openai_responses import judge

ANSWER: dict[str, Any] = orjson.loads(
    (Path(__file__).parent / "fixtures" / "answer.json").read_bytes()
)["body"]
CONTEXT = Context(model="asked", id="AbC123", now=1700000000)


def render(*said: Said, reason: FinishReason = "stop", **members: Any) -> dict[str, Any]:
    answer = Answer(choices=(Choice(said, reason),), **members)
    value = RESPONSES.render_answer(answer, CONTEXT)
    judge.check_answer(value)
    assert isinstance(value, dict)
    return value


def test_an_answer_is_read() -> None:
    answer = collect(RESPONSES.parse_answer(ANSWER))
    assert (answer.id, answer.model) == (ANSWER["id"], "gpt-4.1-2025-04-14")
    assert answer.created == 1741290958
    (choice,) = answer.choices
    assert choice.said == (
        Thinking("Two places.", "rs_1:gAAAAABoZw=="),
        Text("I look."),
        ToolCall("call_1", "get_current_weather", '{"location":"Boston, MA"}'),
    )
    assert choice.finish_reason == "tool_calls"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (291, 23)
    assert answer.usage.prompt_details["cached_tokens"] == 8
    assert answer.usage.completion_details["reasoning_tokens"] == 3


@pytest.mark.parametrize(
    ("told", "reason"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length")],
)
def test_an_incomplete_answer_says_why(told: str | None, reason: str) -> None:
    value = {**ANSWER, "status": "incomplete", "incomplete_details": {"reason": told}}
    assert collect(RESPONSES.parse_answer(value)).choices[0].finish_reason == reason


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (
            {"status": "failed", "output": [], "error": {"code": "server_error", "message": "a"}},
            ProviderError("a", status=500, code="server_error"),
        ),
        (
            {"status": "failed", "output": [], "error": {"code": "invalid_image", "message": "a"}},
            ProviderError("a", status=400, code="invalid_image"),
        ),
        (
            {"status": "cancelled", "output": [], "error": None},
            ProviderError("the provider's response is cancelled", status=502),
        ),
        (
            {"error": {"type": "invalid_request_error", "message": "a", "param": "input"}},
            ProviderError("a", "invalid_request_error", 400, param="input"),
        ),
    ],
)
def test_an_answer_that_failed_is_an_error(value: object, error: ProviderError) -> None:
    assert RESPONSES.parse_answer(value)[-1] == Failed(error)


@pytest.mark.parametrize("value", [None, [], "a", {}, {"output": None}, {"output": "a"}])
def test_what_is_no_answer_is_refused(value: object) -> None:
    with pytest.raises(FormatError, match="'output' is not an array"):
        RESPONSES.parse_answer(value)


@pytest.mark.parametrize(
    "output",
    [
        [None, 3, {}],
        [{"type": "message", "content": None}],
        [{"type": "message", "content": [None, {"type": "output_text", "text": None}]}],
        [{"type": "reasoning", "summary": None}],
        [{"type": "image_generation_call", "result": None}],
        [{"type": "compaction", "encrypted_content": "a"}],
    ],
)
def test_an_answer_with_nothing_in_it_is_empty(output: object) -> None:
    value = {"status": "completed", "output": output, "usage": None}
    assert collect(RESPONSES.parse_answer(value)).choices == (Choice(),)


def test_an_answer_is_written() -> None:
    usage = Usage(
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=15,
        prompt_details={"cached_tokens": 4},
        completion_details={"reasoning_tokens": 2},
        cache_writes={"5m": 3},
    )
    call = ToolCall("call_9", "f", '{"a":1}')
    value = render(
        Text("Hi"), call, reason="tool_calls", id="msg_9", model="real", created=5, usage=usage
    )
    assert value["id"] == "resp_msg_9"
    assert (value["created_at"], value["model"], value["status"]) == (5, "real", "completed")
    assert value["incomplete_details"] is None
    part = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
    assert value["output"] == [
        {
            "id": "msg_AbC1230",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        },
        {
            "id": "fc_AbC1231",
            "type": "function_call",
            "status": "completed",
            "arguments": '{"a":1}',
            "call_id": "call_9",
            "name": "f",
        },
    ]
    assert value["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


def test_what_the_provider_did_not_tell_is_made_up() -> None:
    value = render(ToolCall("", "f", ""))
    assert (value["id"], value["model"], value["created_at"]) == (
        "resp_AbC123",
        "asked",
        1700000000,
    )
    assert value["output"][0]["call_id"] == "call_AbC1230"
    assert value["output"][0]["arguments"] == "{}"
    assert value["usage"] is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
def test_an_answer_that_was_cut_is_incomplete(reason: FinishReason, told: str) -> None:
    value = render(Text("Hi"), reason=reason)
    assert value["status"] == "incomplete"
    assert value["incomplete_details"] == {"reason": told}
    assert value["output"][0]["status"] == "incomplete"


def test_an_answer_without_a_choice_is_an_empty_one() -> None:
    value = RESPONSES.render_answer(Answer(), CONTEXT)
    assert judge.check_answer(value).output == []


def test_texts_and_refusals_share_a_message() -> None:
    value = render(Text("a"), Text("b"), Refusal("No."))
    (item,) = value["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert item["content"][0]["text"] == "ab"


def test_pictures_are_items_and_other_media_texts() -> None:
    picture = Media(kind="image", data="AAAA", media_type="image/webp")
    value = render(picture, Media(kind="image", url="https://example.com/a.png"))
    assert value["output"][0]["output_format"] == "webp"
    (part,) = value["output"][1]["content"]
    assert part["text"] == "![image](https://example.com/a.png)"


def test_what_else_the_provider_tells_stands_beside() -> None:
    value = render(Text("a"), extra={"trace": {"a": 1}, "status": "odd"})
    assert (value["trace"], value["status"]) == ({"a": 1}, "completed")


@pytest.mark.parametrize(
    "said",
    [
        Thinking("Hm.", "c2lnbmVk"),
        Thinking("Hm."),
        Thinking("", "c2lnbmVk"),
        Thinking("", redacted="AAAA"),
        Thinking("Hm.", "rs_1:gAAAAABoZw=="),
        ToolCall("call_1", "f", "{}", "c2lnbmVk"),
        Refusal("No."),
        Media(kind="image", data="AAAA", media_type="image/png"),
    ],
)
def test_what_was_said_comes_back_in_the_next_request(said: Said) -> None:
    output = render(said)["output"]
    found = RESPONSES.parse_request({"input": output}).messages
    assert found == (Message("assistant", (said,)),)


@settings(deadline=None, max_examples=50)  # the judge is slow
@given(strategies.answers(choices=1, assistant_media=True, media_kinds=("image",)))
def test_any_answer_is_valid_and_the_same_as_its_stream(answer: Answer) -> None:
    value = RESPONSES.render_answer(answer, CONTEXT)
    judge.check_answer(value)
    writer = RESPONSES.writer(CONTEXT)
    written = writer.feed(list(pieces(answer))) + writer.end()
    assert judge.events(written)[-1]["response"] == value


def test_errors_are_those_of_openai() -> None:
    body = b'{"error":{"message":"Bad","type":"invalid_request_error","param":"input","code":null}}'
    error = RESPONSES.parse_error(400, body)
    assert error == ProviderError("Bad", "invalid_request_error", 400, param="input")
    assert RESPONSES.render_error(error) == orjson.loads(body)
