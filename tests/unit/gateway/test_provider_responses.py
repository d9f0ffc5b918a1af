"""Responses of the stand-in provider, through OpenAI's own client and its models."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import response_create_params

from kong_ai_proxy.gateway.provider import responses, responses_check
from kong_ai_proxy.gateway.provider.shelf import Shelf
from tests.unit.gateway.provider_client import client, plain

_WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "strict": True,
}
_MAIL: Any = {"type": "custom", "name": "send_mail", "description": "Send a mail to someone"}
_TEXT = {"type": "input_text", "text": "Hello there"}
_QUESTION = "What is the weather in Paris?"
_TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def test_responses_know_every_parameter_of_the_official_client() -> None:
    official = response_create_params.ResponseCreateParamsBase.__annotations__
    of_codex = {"client_metadata"}
    assert official.keys() | {"stream"} | of_codex == responses_check.RULES.keys()


async def test_an_answer_quotes_the_input() -> None:
    async with client() as official:
        answer = await official.responses.create(model="some", input="Hello there")
    assert "stand-in provider" in answer.output_text
    assert "Hello there" in answer.output_text
    assert (answer.status, answer.model) == ("completed", "some")
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize(
    "items",
    [
        [{"role": "user", "content": "Hello there"}],
        [{"type": "message", "role": "user", "content": [_TEXT]}],
        [
            {"role": "system", "content": "Be nice"},
            {"role": "assistant", "content": "Yes?"},
            {
                "role": "user",
                "content": [_TEXT, {"type": "input_image", "image_url": "data:image/png;base64,A"}],
            },
        ],
    ],
)
async def test_an_input_may_be_items(items: Any) -> None:
    async with client() as official:
        answer = await official.responses.create(model="m", input=items)
        listed = [item async for item in official.responses.input_items.list(answer.id)]
    assert "Hello there" in answer.output_text
    assert len(listed) == len(items)
    assert listed[0].type == "message"


async def test_a_stream_has_every_event_in_order_and_the_same_text() -> None:
    async with client() as official:
        whole = await official.responses.create(model="m", input="Hi")
        stream = await official.responses.create(model="m", input="Hi", stream=True)
        events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == _TEXT_EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage


async def test_the_clients_stream_helper_gathers_the_answer() -> None:
    async with (
        client() as official,
        official.responses.stream(model="m", input="Hi", tools=[_MAIL]) as stream,
    ):
        final = await stream.get_final_response()
    assert final.output[0].type == "custom_tool_call"


async def test_events_carry_their_names_and_no_done_marker() -> None:
    async with plain() as http:
        answer = await http.post("/v1/responses", json={"model": "m", "input": "x", "stream": True})
    assert answer.text.startswith('event: response.created\ndata: {"type":"response.created"')
    assert "[DONE]" not in answer.text


async def test_a_function_is_called_with_arguments_that_fit() -> None:
    async with client() as official:
        answer = await official.responses.create(
            model="m", input=_QUESTION, tools=[_WEATHER, _MAIL, {"type": "web_search"}]
        )
    call = answer.output[0]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Paris", "days": 1}
    assert call.call_id.startswith("call_")


async def test_an_empty_input_is_answered_too() -> None:
    async with client() as official:
        answer = await official.responses.create(model="m", input=[], tools=[_WEATHER])
    assert answer.output[0].type == "function_call"


async def test_a_streamed_call_comes_in_pieces() -> None:
    async with client() as official:
        stream = await official.responses.create(
            model="m", input=_QUESTION, tools=[_WEATHER], stream=True
        )
        events = [event async for event in stream]
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 1
    done = next(e for e in events if e.type == "response.function_call_arguments.done")
    assert "".join(pieces) == done.arguments


async def test_the_tools_result_is_answered() -> None:
    async with client() as official:
        first = await official.responses.create(model="m", input=_QUESTION, tools=[_WEATHER])
        call: Any = first.output[0]
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        second = await official.responses.create(
            model="m", previous_response_id=first.id, input=[output], tools=[_WEATHER]
        )
    assert "sunny" in second.output_text
    assert _QUESTION in second.output_text
    assert second.previous_response_id == first.id


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        ("none", "message"),
        ("required", "function_call"),
        ({"type": "custom", "name": "send_mail"}, "custom_tool_call"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "x"}]},
            "message",
        ),
    ],
)
async def test_the_tool_choice_is_kept(choice: Any, kind: str) -> None:
    async with client() as official:
        answer = await official.responses.create(
            model="m", input=_QUESTION, tools=[_WEATHER, _MAIL], tool_choice=choice
        )
    assert answer.output[0].type == kind


class _City(pydantic.BaseModel):
    name: str
    rivers: list[str]


async def test_a_structured_answer_fits_its_schema() -> None:
    async with client() as official:
        answer = await official.responses.parse(
            model="m", input="Tell me about Paris", text_format=_City
        )
    assert answer.output_parsed is not None
    assert answer.output_parsed.rivers


async def test_a_limit_cuts_the_answer() -> None:
    async with client() as official:
        answer = await official.responses.create(model="m", input="a " * 50, max_output_tokens=16)
        stream = await official.responses.create(
            model="m", input="a " * 50, max_output_tokens=16, stream=True
        )
        events = [event async for event in stream]
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 16
    assert events[-1].type == "response.incomplete"


async def test_log_probabilities_come_when_included() -> None:
    async with client() as official:
        answer = await official.responses.create(
            model="m", input="Hi", include=["message.output_text.logprobs"], top_logprobs=1
        )
    content: Any = answer.output[0]
    assert content.content[0].logprobs[0].token == "This"


async def test_a_response_is_remembered_until_it_is_deleted() -> None:
    async with client() as official:
        made = await official.responses.create(model="m", input="Hi", metadata={"a": "b"})
        assert await official.responses.retrieve(made.id) == made
        await official.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError, match=made.id):
            await official.responses.retrieve(made.id)


async def test_a_response_that_is_not_stored_is_not_remembered() -> None:
    async with client() as official:
        made = await official.responses.create(model="m", input="Hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await official.responses.retrieve(made.id)


async def test_a_background_response_is_done_after_some_polls() -> None:
    async with client() as official:
        made = await official.responses.create(model="m", input="Hi", background=True)
        polled = [await official.responses.retrieve(made.id) for _ in range(2)]
    assert [made.status, *(r.status for r in polled)] == ["queued", "in_progress", "completed"]
    assert made.output == []
    assert "Hi" in polled[-1].output_text


async def test_a_background_response_can_be_cancelled() -> None:
    async with client() as official:
        made = await official.responses.create(model="m", input="Hi", background=True)
        cancelled = await official.responses.cancel(made.id)
        later = await official.responses.retrieve(made.id)
    assert cancelled.status == later.status == "cancelled"


async def test_a_response_in_the_foreground_cannot_be_cancelled() -> None:
    async with client() as official:
        made = await official.responses.create(model="m", input="Hi")
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            await official.responses.cancel(made.id)


async def test_input_items_come_newest_first_page_by_page() -> None:
    async with client() as official:
        items: Any = [{"role": "user", "content": str(number)} for number in range(5)]
        made = await official.responses.create(model="m", input=items)
        listed: list[Any] = [
            item async for item in official.responses.input_items.list(made.id, limit=2)
        ]
        oldest: Any = await official.responses.input_items.list(made.id, order="asc", limit=1)
    assert [item.content[0].text for item in listed] == ["4", "3", "2", "1", "0"]
    assert oldest.data[0].content[0].text == "0"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a"]}, "input[0]"),
        ({"input": [{"type": "what"}]}, "input[0].type"),
        ({"input": [{"role": "boss", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "text"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "chat"}]}, "tools[0].type"),
        ({"tools": [_WEATHER["name"]]}, "tools[0]"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_object"}}}, "input"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"messages": []}, None),
    ],
)
async def test_wrong_requests(change: dict[str, Any], param: str | None) -> None:
    async with plain() as http:
        answer = await http.post("/v1/responses", json={"model": "m", "input": "x", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/x"),
        ("DELETE", "/v1/responses/%2e%2e"),
        ("POST", "/v1/responses/x/cancel"),
        ("GET", "/v1/responses/..%2Fx/input_items"),
    ],
)
async def test_unknown_ids_are_not_found(method: str, path: str) -> None:
    async with plain() as http:
        answer = await http.request(method, path)
    assert answer.status_code == 404
    assert "not found" in answer.json()["error"]["message"]


def test_memory_is_bounded_in_number_and_in_bytes() -> None:
    by_number: Shelf[responses.Stored] = Shelf("{id}", most=2)
    by_bytes: Shelf[responses.Stored] = Shelf(
        "{id}", most_bytes=5000, weigh=responses.Stored.weight
    )
    for shelf in (by_number, by_bytes):
        for number in range(5):
            responses.answer({"model": "m", "input": f"{number} {'x' * 300}"}, shelf)
        assert len(shelf) == 2
