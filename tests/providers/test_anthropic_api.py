"""The Anthropic stand-in: the official client is content with it, and it refuses what is wrong."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import anthropic
import pytest

from tests import providers
from tests.providers import ToolCall, Turn, Usage
from tests.providers.anthropic_api import Anthropic

Json = dict[str, Any]

MODEL = "claude-sonnet-4-6"
TOOL: Any = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
ASKED: Any = [{"role": "user", "content": "1 + 1?"}]
HEADERS = {"x-api-key": "secret", "anthropic-version": "2023-06-01"}


@pytest.fixture
async def upstream() -> AsyncIterator[Anthropic]:
    async with providers.anthropic() as running:
        yield running


@pytest.fixture
async def client(upstream: Anthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=upstream.url, api_key="secret", max_retries=0
    ) as made:
        yield made


async def test_a_message_with_parallel_tool_calls(
    client: anthropic.AsyncAnthropic, upstream: Anthropic
) -> None:
    calls = [ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2})]
    upstream.script(thinking="Hm.", text="Let me see.", tool_calls=calls)
    message = await client.messages.create(
        model=MODEL, max_tokens=100, messages=ASKED, tools=[TOOL]
    )
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert upstream.failures == []


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate", "br"])
async def test_a_stream_in_small_pieces(
    client: anthropic.AsyncAnthropic, upstream: Anthropic, encoding: str
) -> None:
    upstream.script(
        thinking="Hm.", tool_calls=[ToolCall("add", {"a": 1})], encoding=encoding, piece=7
    )
    async with client.messages.stream(
        model=MODEL, max_tokens=100, messages=ASKED, tools=[TOOL]
    ) as stream:
        message = await stream.get_final_message()
    assert message.content[-1].model_dump()["input"] == {"a": 1}
    assert upstream.failures == []


async def test_a_tool_loop_runs_through_its_turns(
    client: anthropic.AsyncAnthropic, upstream: Anthropic
) -> None:
    upstream.script(Turn(tool_calls=[ToolCall("add", {"a": 1})]), Turn(text="Two."))
    first = await client.messages.create(model=MODEL, max_tokens=9, messages=ASKED, tools=[TOOL])
    use = first.content[0]
    assert use.type == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "2"}
    turns: Any = [
        *ASKED,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = await client.messages.create(model=MODEL, max_tokens=9, messages=turns, tools=[TOOL])
    assert second.content[0].model_dump()["text"] == "Two."


async def test_tokens_are_counted(client: anthropic.AsyncAnthropic, upstream: Anthropic) -> None:
    upstream.script(usage=Usage(input=21))
    count = await client.messages.count_tokens(model=MODEL, messages=ASKED, tools=[TOOL])
    assert count.input_tokens == 21


async def test_an_error_inside_a_stream(
    client: anthropic.AsyncAnthropic, upstream: Anthropic
) -> None:
    upstream.script(stream_error="Overloaded", error_after=3)
    with pytest.raises(anthropic.APIError, match="Overloaded"):
        async with client.messages.stream(model=MODEL, max_tokens=9, messages=ASKED) as stream:
            await stream.get_final_message()


async def test_a_scripted_status(client: anthropic.AsyncAnthropic, upstream: Anthropic) -> None:
    upstream.script(status=429, message="slow down", headers={"Retry-After": "3"})
    with pytest.raises(anthropic.RateLimitError, match="slow down") as caught:
        await client.messages.create(model=MODEL, max_tokens=9, messages=ASKED)
    assert caught.value.response.headers["retry-after"] == "3"
    assert upstream.failures == []


BODY: Json = {
    "model": MODEL,
    "max_tokens": 2000,
    "messages": [
        {"role": "user", "content": "1 + 1?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "add", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "2"},
                {"type": "text", "text": "So?"},
            ],
        },
    ],
    "tools": [TOOL],
    "temperature": 0.5,
    "stop_sequences": ["x"],
}

WRONG: dict[str, tuple[Callable[[Json], object], str]] = {
    "unknown member": (lambda body: body.update(n=1), "n: Extra"),
    "unknown member of a block": (
        lambda body: body["messages"][2]["content"][1].update(name="x"),
        "name: Extra",
    ),
    "no max_tokens": (lambda body: body.pop("max_tokens"), "max_tokens: Field required"),
    "max_tokens as text": (lambda body: body.update(max_tokens="9"), "valid integer"),
    "temperature": (lambda body: body.update(temperature=1.5), "temperature"),
    "two samplers": (lambda body: body.update(top_p=0.5), "cannot both"),
    "newer model": (lambda body: body.update(model="claude-opus-4-7"), "deprecated for this model"),
    "role": (lambda body: body["messages"][0].update(role="tool"), "role"),
    "assistant first": (lambda body: body["messages"].pop(0), "first message"),
    "no result": (lambda body: body["messages"][2]["content"].pop(0), "without `tool_result`"),
    "result of nothing": (
        lambda body: body["messages"][2]["content"][0].update(tool_use_id="t2"),
        "unexpected `tool_use_id`",
    ),
    "text before a result": (lambda body: body["messages"][2]["content"].reverse(), "come first"),
    "empty text": (lambda body: body["messages"][0].update(content=""), "non-empty"),
    "OpenAI's tool": (lambda body: body.update(tools=[{"type": "function"}]), "tools.0"),
    "schema without type": (lambda body: body["tools"][0].update(input_schema={}), "input_schema"),
    "budget": (
        lambda body: body.update(thinking={"type": "enabled", "budget_tokens": 2000}),
        "budget_tokens",
    ),
}


async def _post(upstream: Anthropic, path: str, **options: Any) -> tuple[int, Json]:
    options = {"headers": HEADERS, **options}
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url + path, **options) as response,
    ):
        return response.status, await response.json()


async def test_the_body_that_the_wrong_ones_are_made_of_is_right(upstream: Anthropic) -> None:
    status, _ = await _post(upstream, "/v1/messages", json=BODY)
    assert (status, upstream.failures) == (200, [])


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_is_refused(upstream: Anthropic, name: str) -> None:
    change, expected = WRONG[name]
    body = copy.deepcopy(BODY)
    change(body)
    status, answer = await _post(upstream, "/v1/messages", json=body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert expected in answer["error"]["message"]
    assert expected in upstream.failures[0]


@pytest.mark.parametrize("missing", HEADERS)
async def test_headers_are_required(upstream: Anthropic, missing: str) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    status, _ = await _post(upstream, "/v1/messages", json=BODY, headers=headers)
    assert status == (401 if missing == "x-api-key" else 400)
    assert len(upstream.failures) == 1


async def test_an_unknown_path_is_refused(upstream: Anthropic) -> None:
    status, answer = await _post(upstream, "/v1/chat/completions", json=BODY)
    assert (status, answer["error"]["type"]) == (404, "not_found_error")


async def test_text_completions(upstream: Anthropic) -> None:
    body = {
        "model": "claude-2.1",
        "prompt": "\n\nHuman: Hi\n\nAssistant:",
        "max_tokens_to_sample": 9,
    }
    status, answer = await _post(upstream, "/v1/complete", json=body)
    assert (status, answer["completion"]) == (200, "Hello from the stand-in.")
    status, answer = await _post(upstream, "/v1/complete", json={**body, "prompt": "Hi"})
    assert status == 400
