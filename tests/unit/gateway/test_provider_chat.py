"""Chat completions of the stand-in provider, through OpenAI's own client and its models."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai.types.chat import completion_create_params

from kong_ai_proxy.gateway.provider import chat_check
from tests.unit.gateway.provider_client import client, plain, said, tool

_WEATHER = tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 2},
            "note": {"type": "string"},
        },
        "required": ["city", "unit", "days"],
    },
    "The weather in a city",
)
_MAIL = tool("send_mail", {"type": "object", "properties": {}}, "Send a mail to someone")
_ARGUMENTS = {"city": "Paris", "unit": "celsius", "days": 2}


async def test_an_answer_quotes_the_question_and_says_what_it_is() -> None:
    async with client() as official:
        answer = await official.chat.completions.create(model="some", messages=said("Hello there"))
    choice = answer.choices[0]
    assert choice.message.content is not None
    assert "stand-in provider" in choice.message.content
    assert "Hello there" in choice.message.content
    assert choice.finish_reason == "stop"
    assert answer.model == "some"
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp_stand_in_kong_ai_proxy"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == 5  # two words and three for the message


async def test_a_streamed_answer_comes_word_by_word_and_is_the_same_text() -> None:
    async with client() as official:
        whole = await official.chat.completions.create(model="m", messages=said("Hello there"))
        stream = await official.chat.completions.create(
            model="m", messages=said("Hello there"), stream=True
        )
        chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(words) == whole.choices[0].message.content
    assert all(len(word.split()) == 1 for word in words)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_ends_with_done() -> None:
    body = {"model": "m", "messages": said("Hi"), "stream": True}
    async with plain() as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    async with client() as official:
        stream = await official.chat.completions.create(
            model="m", messages=said("Hi"), stream=True, stream_options={"include_usage": True}
        )
        *others, last = [chunk async for chunk in stream]
        whole = await official.chat.completions.create(model="m", messages=said("Hi"))
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in others)


async def test_several_choices_are_told_apart() -> None:
    async with client() as official:
        answer = await official.chat.completions.create(model="m", messages=said("Hi"), n=3)
        stream = await official.chat.completions.create(
            model="m", messages=said("Hi"), n=3, stream=True
        )
        texts = ["", "", ""]
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [choice.message.content for choice in answer.choices] == texts
    assert len(set(texts)) == 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_cuts_the_answer(name: str) -> None:
    limit: Any = {name: 4}
    async with client() as official:
        answer = await official.chat.completions.create(model="m", messages=said("Hi"), **limit)
    assert answer.choices[0].message.content == "This is the stand-in"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize("stop", [" of", ["zzz", " of"]])
async def test_a_stop_sequence_ends_the_answer_before_it(stop: Any) -> None:
    async with client() as official:
        answer = await official.chat.completions.create(model="m", messages=said("Hi"), stop=stop)
    assert answer.choices[0].message.content == "This is the stand-in provider"
    assert answer.choices[0].finish_reason == "stop"


async def test_log_probabilities_are_there_for_each_word() -> None:
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("Hi"), max_tokens=3, logprobs=True, top_logprobs=1
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [item.token for item in logprobs.content] == ["This", " is", " the"]
    assert len(logprobs.content[0].top_logprobs) == 1


async def test_an_image_counts_as_tokens() -> None:
    content: list[Any] = [
        {"type": "text", "text": "What is this"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=[{"role": "user", "content": content}]
        )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3 + 3 + 85


# -- tools ----------------------------------------------------------------------------------------


async def test_the_fitting_tool_is_called_with_arguments_that_fit_its_schema() -> None:
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("What is the weather in Paris?"), tools=[_MAIL, _WEATHER]
        )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == _ARGUMENTS


async def test_a_streamed_tool_call_adds_up_to_the_same() -> None:
    async with client() as official:
        stream = await official.chat.completions.create(
            model="m", messages=said("The weather in Paris?"), tools=[_WEATHER], stream=True
        )
        chunks = [chunk async for chunk in stream]
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    functions = [call.function for call in calls if call.function is not None]
    assert [function.name for function in functions if function.name] == ["get_weather"]
    assert json.loads("".join(function.arguments or "" for function in functions)) == _ARGUMENTS
    assert len(functions) > 3  # in pieces
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_after_a_tools_result_it_answers_with_it() -> None:
    async with client() as official:
        first = await official.chat.completions.create(
            model="m", messages=said("The weather in Paris?"), tools=[_WEATHER]
        )
        asked = first.choices[0].message
        assert asked.tool_calls is not None
        result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "18 degrees"}
        messages = [*said("The weather in Paris?"), asked.model_dump(exclude_none=True), result]
        answer = await official.chat.completions.create(
            model="m", messages=messages, tools=[_WEATHER]
        )
    assert answer.choices[0].message.content is not None
    assert "18 degrees" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


async def test_tool_choice_none_gives_text() -> None:
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("The weather?"), tools=[_WEATHER], tool_choice="none"
        )
    assert answer.choices[0].message.tool_calls is None


async def test_tool_choice_names_the_tool() -> None:
    choice: Any = {"type": "function", "function": {"name": "send_mail"}}
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("Weather?"), tools=[_WEATHER, _MAIL], tool_choice=choice
        )
    assert answer.choices[0].message.tool_calls is not None
    assert answer.choices[0].message.tool_calls[0].function.name == "send_mail"  # type: ignore[union-attr]
    assert answer.choices[0].finish_reason == "stop"  # as OpenAI ends a call that was asked for


async def test_tool_choice_can_allow_some_tools_only() -> None:
    chosen = {"mode": "auto", "tools": [_MAIL]}
    choice: Any = {"type": "allowed_tools", "allowed_tools": chosen}
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("Weather?"), tools=[_WEATHER, _MAIL], tool_choice=choice
        )
    assert answer.choices[0].message.tool_calls is not None
    assert answer.choices[0].message.tool_calls[0].function.name == "send_mail"  # type: ignore[union-attr]


async def test_a_custom_tool_gets_text() -> None:
    custom: Any = {"type": "custom", "custom": {"name": "run"}}
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("1 + 1"), tools=[custom]
        )
    assert answer.choices[0].message.tool_calls is not None
    assert answer.choices[0].message.tool_calls[0].custom.input == "1 + 1"  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_older_functions_work_too(stream: bool) -> None:
    body = {"model": "m", "messages": said("The weather in Paris?"), "stream": stream}
    async with plain() as http:
        answer = await http.post(
            "/v1/chat/completions", json={**body, "functions": [_WEATHER["function"]]}
        )
    assert '"function_call"' in answer.text
    assert "get_weather" in answer.text


# -- JSON -----------------------------------------------------------------------------------------


async def test_json_object_gives_json() -> None:
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m", messages=said("As JSON"), response_format={"type": "json_object"}
        )
    assert "stand-in" in json.loads(answer.choices[0].message.content or "")["answer"]


async def test_json_schema_gives_a_value_that_fits() -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "tags": {"$ref": "#/$defs/tags"}},
        "required": ["name", "tags"],
        "$defs": {"tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2}},
    }
    described: Any = {"name": "thing", "strict": True, "schema": schema}
    async with client() as official:
        answer = await official.chat.completions.create(
            model="m",
            messages=said("Tell me of Ada"),
            response_format={"type": "json_schema", "json_schema": described},
        )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Ada", "tags": ["a"] * 2}


class _Answer(pydantic.BaseModel):
    city: str
    kind: Literal["capital", "town"]
    tags: list[str]
    size: int | None


async def test_the_official_client_parses_a_structured_answer() -> None:
    async with client() as official:
        answer = await official.chat.completions.parse(
            model="m", messages=said("Tell me of Ada"), response_format=_Answer
        )
    assert answer.choices[0].message.parsed == _Answer(
        city="Ada", kind="capital", tags=["Ada"], size=1
    )


# -- what is refused -------------------------------------------------------------------------------


def test_it_knows_every_parameter_of_the_official_client() -> None:
    official = completion_create_params.CompletionCreateParamsBase.__annotations__
    assert official.keys() | {"stream"} == chat_check.RULES.keys()


_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_ASKS = {"role": "assistant", "tool_calls": [_CALL]}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, None, None),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", None),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c1"}]},
            "messages.[0].role",
            None,
        ),
        ({"messages": [_ASKS, {"role": "user", "content": "Hi"}]}, "messages", None),
        ({"messages": [_ASKS]}, "messages", None),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": [1]}, "stop", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"tools": []}, "tools", "empty_array"),
        ({"tools": [{"type": "hammer"}]}, "tools[0].type", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {}}]},
            "tools[0].function.name",
            "missing_required_parameter",
        ),
        ({"tool_choice": "auto"}, "tool_choice", None),
        ({"tools": [_MAIL], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        (
            {
                "tools": [_MAIL],
                "tool_choice": {"type": "function", "function": {"name": "other"}},
            },
            "tool_choice",
            None,
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_object"}}, "messages", None),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"functions": [_MAIL["function"]], "function_call": {}},
            "function_call.name",
            "missing_required_parameter",
        ),
        ({"tools": [tool("f", {"required": 5})]}, "tools", None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "integer", "multipleOf": 0}},
                }
            },
            "response_format",
            None,
        ),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"top_k": 5}, None, None),
    ],
)
async def test_a_wrong_request_is_refused_with_the_parameter_named(
    change: dict[str, Any], param: str | None, code: str | None
) -> None:
    async with plain() as http:
        answer = await http.post(
            "/v1/chat/completions", json={"model": "m", "messages": said("Hi"), **change}
        )
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


async def test_the_official_client_understands_an_error() -> None:
    async with client() as official:
        with pytest.raises(openai.BadRequestError) as caught:
            await official.chat.completions.create(model="m", messages=[])
    assert caught.value.param == "messages"
    assert caught.value.code == "empty_array"
