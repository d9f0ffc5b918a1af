"""Completions: one prompt, continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from openai.types import Completion

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Rendered,
    Text,
    Thinking,
    Tool,
    ToolCall,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    Choice,
    Delta,
    Failed,
    Finished,
    Logprobs,
    TextPiece,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai.completions import COMPLETIONS
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies
from tests.unit.formats.openai import sdk

STREAM = (Path(__file__).parent / "fixtures/completion.sse").read_bytes()
CONTEXT = Context(model="asked", id="AbC123", now=1700000000)

# https://platform.openai.com/docs/api-reference/completions/create
REQUEST: dict[str, Any] = {
    "model": "gpt-3.5-turbo-instruct",
    "prompt": "Say this is a test",
    "max_tokens": 7,
    "temperature": 0,
    "stop": ["\n"],
    "suffix": "!",
    "echo": True,
    "best_of": 2,
    "n": 2,
    "logprobs": 3,
    "seed": 1,
    "user": "ann",
}
ANSWER: dict[str, Any] = {
    "id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
    "object": "text_completion",
    "created": 1589478378,
    "model": "VAR_model_id",
    "system_fingerprint": "fp_44709d6fcb",
    "choices": [
        {
            "text": "\n\nThis is",
            "index": 0,
            "logprobs": {
                "tokens": ["\n\n", "This is"],
                "token_logprobs": [-0.1, None],
                "top_logprobs": [{"\n\n": -0.1}, None],
                "text_offset": [18, 20],
            },
            "finish_reason": "length",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}


def written(deltas: list[Delta], context: Context = CONTEXT) -> bytes:
    writer = COMPLETIONS.writer(context)
    return b"".join(writer.feed([delta]) for delta in deltas) + writer.end()


def texts(stream: bytes) -> list[tuple[str, str]]:
    """Each choice of a stream, with its finish reason."""
    found: dict[int, list[str]] = {}
    for chunk in sdk.chunks(stream):
        # OpenAI's package has one type for both, in which a choice has always finished.
        for choice in chunk["choices"]:
            ended = {**choice, "finish_reason": choice["finish_reason"] or "stop"}
            Completion.model_validate({**chunk, "choices": [ended]})
            known = found.setdefault(choice["index"], ["", ""])
            assert not known[1]
            known[0] += choice["text"]
            known[1] = choice["finish_reason"] or ""
    return [(text, reason) for _, (text, reason) in sorted(found.items())]


def test_a_request_in_the_format_survives() -> None:
    said = COMPLETIONS.parse_request(REQUEST)
    assert said.is_completion
    assert said.prompt == "Say this is a test"
    assert said.settings["top_logprobs"] == 3
    found = COMPLETIONS.render_request(said)
    assert found == Rendered(REQUEST)
    sdk.check_prompt_request(found.body)


@pytest.mark.parametrize("prompt", ["a", ["a"]])
def test_a_prompt_is_a_text_or_an_array_of_one(prompt: object) -> None:
    said = COMPLETIONS.parse_request({"prompt": prompt}, model="m", stream=True)
    assert said.messages == (Message("user", (Text("a"),)),)
    assert (said.model, said.stream) == ("m", True)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (["a", "b"], "prompt: expected one text"),
        ([1, 2], "prompt: expected a string, or an array of one; token numbers"),
        ([[1]], "prompt: expected a string, or an array of one; token numbers"),
        ([], "prompt: expected a string"),
        (None, "prompt: expected an array"),
        (1, "prompt: expected an array"),
    ],
)
def test_other_prompts_are_refused(prompt: object, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        COMPLETIONS.parse_request({"prompt": prompt})
    assert str(raised.value).startswith(message)


def test_a_stream_is_asked_for_with_its_usage() -> None:
    body = {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}
    said = COMPLETIONS.parse_request(body)
    assert said.wants_usage
    assert COMPLETIONS.render_request(said).body == body


def test_a_conversation_of_texts_is_one_prompt() -> None:
    said = Conversation(
        messages=(
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("Hi"),)),
            Message("assistant", (Thinking("Hm."), Text("Hello"))),
        ),
        output=OutputFormat(),
        reasoning=Reasoning(effort="low"),
        settings={"verbosity": "low", "logprobs": True},
    )
    assert COMPLETIONS.render_request(said) == Rendered(
        {"prompt": "Be brief.\n\nHi\n\nHello", "logprobs": 0},
        ("verbosity", "response_format", "reasoning_effort"),
    )


@pytest.mark.parametrize("block", [Media(kind="image", data="AA=="), ToolCall("a", "f")])
def test_other_content_than_text_is_refused(block: Any) -> None:
    with pytest.raises(FormatError, match=r"messages\[0\]: a provider of completions takes only"):
        COMPLETIONS.render_request(Conversation(messages=(Message("user", (block,)),)))


def test_tools_are_refused() -> None:
    with pytest.raises(FormatError, match="tools: a provider of completions takes none"):
        COMPLETIONS.render_request(Conversation(messages=(), tools=(Tool(name="f"),)))


def test_a_whole_answer_is_read_and_written() -> None:
    answer = collect(COMPLETIONS.parse_answer(ANSWER))
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("\n\nThis is", "length")
    value = COMPLETIONS.render_answer(answer, CONTEXT)
    assert isinstance(value, dict)
    assert {**value, "system_fingerprint": "fp_44709d6fcb", "choices": []} == {
        **ANSWER,
        "choices": [],
    }
    told = value["choices"][0]
    assert told["text"] == "\n\nThis is"
    assert told["logprobs"]["tokens"] == ["\n\n", "This is"]
    assert told["logprobs"]["token_logprobs"] == [-0.1, None]


@pytest.mark.parametrize("value", [None, {}, {"choices": None}])
def test_what_is_no_answer_is_refused(value: object) -> None:
    with pytest.raises(FormatError, match="'choices' not in llm/v1/completions response"):
        COMPLETIONS.parse_answer(value)


def test_a_stream_is_read() -> None:
    answer = collect(strategies.read(COMPLETIONS.reader(), [STREAM]))
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("This is a test.", "length")
    assert [each["token"] for each in choice.logprobs if isinstance(each, dict)] == [" is"]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12


def test_a_stream_that_is_cut_has_failed() -> None:
    data = b'data: {"choices":[{"text":"a"}]}\n\n'
    assert isinstance(strategies.read(COMPLETIONS.reader(), [data])[-1], Failed)


def test_what_the_provider_does_not_tell_is_made_up() -> None:
    answer = Answer(choices=(Choice((Text("a"),)),))
    value = COMPLETIONS.render_answer(answer, CONTEXT)
    sdk.check_prompt_answer(value)
    assert isinstance(value, dict)
    assert (value["id"], value["object"]) == ("cmpl-AbC123", "text_completion")
    assert (value["created"], value["model"]) == (1700000000, "asked")


def test_only_texts_are_written_and_calls_are_no_reason() -> None:
    said = (Thinking("Hm."), Text("a"), ToolCall("1", "f"), Refusal("No."))
    value = COMPLETIONS.render_answer(Answer(choices=(Choice(said, "tool_calls"),)), CONTEXT)
    assert isinstance(value, dict)
    assert (value["choices"][0]["text"], value["choices"][0]["finish_reason"]) == ("aNo.", "stop")


def test_the_prompt_is_echoed() -> None:
    context = CONTEXT._replace(prefix="Say: ")
    token = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    answer = Answer(choices=(Choice((Text("a"),), logprobs=(token,)),))
    value = COMPLETIONS.render_answer(answer, context)
    assert isinstance(value, dict)
    assert value["choices"][0]["text"] == "Say: a"
    assert value["choices"][0]["logprobs"]["text_offset"] == [5]
    stream = written([TextPiece("a"), Logprobs([token]), Finished("stop")], context)
    assert texts(stream) == [("Say: a", "stop")]
    told = [chunk["choices"][0]["logprobs"] for chunk in sdk.chunks(stream)]
    assert [each["text_offset"] for each in told if each] == [[5]]


def test_a_stream_tells_its_usage_once_where_it_is_asked_for() -> None:
    deltas: list[Delta] = [Used(Usage(total_tokens=3)), TextPiece("a"), Finished("stop")]
    *others, last = sdk.chunks(written(deltas, CONTEXT._replace(wants_usage=True)))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 3
    assert all(chunk["usage"] is None for chunk in others)
    assert not any("usage" in chunk for chunk in sdk.chunks(written(deltas)))


def test_a_stream_that_failed_ends_with_the_error() -> None:
    writer = COMPLETIONS.writer(CONTEXT)
    event = writer.feed([TextPiece("a"), Failed(ProviderError("no", "t")), TextPiece("b")])
    assert orjson.loads(event.split(b"data: ")[-1])["error"]["message"] == "no"
    assert writer.feed([TextPiece("c")]) + writer.end() == b""


def test_an_empty_stream_is_well_formed() -> None:
    assert texts(written([])) == [("", "stop")]


@given(strategies.delta_lists())
def test_a_stream_tells_what_the_whole_answer_tells(deltas: list[Delta]) -> None:
    value = COMPLETIONS.render_answer(collect(deltas), CONTEXT)
    sdk.check_prompt_answer(value)
    assert isinstance(value, dict)
    expected = [(choice["text"], choice["finish_reason"]) for choice in value["choices"]]
    assert texts(written(deltas)) == expected
