"""The official `openai` client chats with every provider through Kong and sees OpenAI's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

from tests.integration import text_world
from tests.integration.text_world import (
    BACKENDS,
    CLIENTS_OWN,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Place,
    World,
    but,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("openai",)
gateway, world = text_world.gateway, text_world.world
place = text_world.places("openai", BACKENDS)

TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in (("get_weather", WEATHER_PARAMETERS), ("get_time", TIME_PARAMETERS))
]
QUESTION: ChatCompletionMessageParam = {"role": "user", "content": "What is it like in Zürich?"}
NO_TOOLS = ("llama2-raw",)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def root(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=world.running.url,
        api_key=CLIENTS_OWN,
        max_retries=0,
        timeout=20,
        default_headers={"cookie": f"session={CLIENTS_OWN}", "x-api-key": CLIENTS_OWN},
    ) as client:
        yield client


@pytest.fixture
def client(root: AsyncOpenAI, place: Place) -> AsyncOpenAI:
    return root.with_options(base_url=f"{place.url}/v1")


def text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@but(BACKENDS, "huggingface", "llama2-raw")
async def test_chat(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    raw = await client.chat.completions.with_raw_response.create(
        model=place.model, messages=[{"role": "system", "content": "Be brief."}, QUESTION]
    )
    answer = raw.parse()
    assert answer.object == "chat.completion"
    assert answer.id
    assert answer.created > 1_500_000_000
    assert answer.model == place.model
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert choice.message.role == "assistant"
    assert choice.message.content == "Rivers run – to the sea."
    assert not choice.message.tool_calls
    assert answer.usage
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert raw.headers["x-kong-llm-model"] == place.header
    assert raw.headers["content-type"].startswith("application/json")


@but(BACKENDS, "huggingface", "mistral")
async def test_chat_streamed(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.")
    stream = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert text(chunks) == "Rivers run – to the sea."
    assert [c.choices[0].delta.role for c in chunks if c.choices[0].delta.role] == ["assistant"]
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert not [chunk for chunk in chunks if chunk.usage]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert (chunks[0].object, chunks[0].model) == ("chat.completion.chunk", place.model)
    assert len(chunks) > 5


@but(BACKENDS, "mistral", "databricks")
async def test_a_stream_tells_usage_once_when_asked(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="To the sea.", usage=Usage(input=12, output=8))
    stream = await client.chat.completions.create(
        model=place.model,
        messages=[QUESTION],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert [chunk for chunk in chunks if chunk.usage] == chunks[-1:]
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 8, 20)


async def test_a_stream_ends_with_done_and_a_blank_line(client: AsyncOpenAI, place: Place) -> None:
    async with client.chat.completions.with_streaming_response.create(
        model=place.model, messages=[QUESTION], stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-kong-llm-model"] == place.header
        body = b"".join([piece async for piece in response.iter_bytes()])
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert body.count(b"[DONE]") == 1


def called(message: Any) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a message: names and parsed arguments."""
    calls = message.tool_calls or []
    assert all(call.type == "function" and call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


@but(BACKENDS, *NO_TOOLS)
async def test_parallel_calls(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    answer = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], tools=TOOLS
    )
    assert called(answer.choices[0].message) == BOTH
    assert answer.choices[0].finish_reason == "tool_calls"


@but(BACKENDS, *NO_TOOLS)
async def test_parallel_calls_streamed(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    async with client.chat.completions.stream(
        model=place.model, messages=[QUESTION], tools=TOOLS
    ) as stream:
        async for _ in stream:
            pass
        answer = await stream.get_final_completion()
    assert called(answer.choices[0].message) == BOTH
    assert answer.choices[0].finish_reason == "tool_calls"


@but(BACKENDS, *NO_TOOLS)
async def test_results_of_calls_go_back(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], tools=TOOLS
    )
    asked = first.choices[0].message
    results: list[ChatCompletionMessageParam] = [
        {"role": "tool", "tool_call_id": call.id, "content": f"result of {number}"}
        for number, call in enumerate(asked.tool_calls or ())
    ]
    second = await client.chat.completions.create(
        model=place.model,
        messages=[QUESTION, asked.model_dump(exclude_none=True), *reversed(results)],  # type: ignore[list-item]
        tools=TOOLS,
    )
    assert second.choices[0].message.content == "18 °C at noon."
    assert b"result of 0" in place.upstream.requests[-1].body
    assert b"result of 1" in place.upstream.requests[-1].body


@but(BACKENDS, *NO_TOOLS, "huggingface")
async def test_a_tool_can_be_demanded(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(tool_calls=[TIME])
    answer = await client.chat.completions.create(
        model=place.model,
        messages=[QUESTION],
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "get_time"}},
    )
    assert called(answer.choices[0].message) == BOTH[1:]
