"""The official `openai` client talks to a provider through Kong by changing its base URL only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionToolParam

from kong_ai_proxy.gateway import provider as standin_provider
from kong_ai_proxy.gateway.provider.http import Settings
from tests.decks import KEY, openai_deck
from tests.gateways import GatewayFactory

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}


@pytest.fixture
async def provider() -> AsyncIterator[str]:
    """The base URL of a provider that insists on the configured key."""
    runner = web.AppRunner(standin_provider.application(Settings(api_key=KEY)))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.fixture
async def client(gateway: GatewayFactory, provider: str) -> AsyncIterator[AsyncOpenAI]:
    running = await gateway(openai_deck(provider))
    async with AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key="the-clients-own", max_retries=0, timeout=30
    ) as client:
        yield client


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Say something about rivers."}]
    )
    assert answer.model == "gpt-4o"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_chat_says_which_model_answered(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
    )
    assert raw.headers["x-kong-llm-model"] == "openai/gpt-4o"


async def test_chat_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Say something about rivers."}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    words = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(words) > 5
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert [c.usage.total_tokens > 0 for c in chunks if c.usage] == [True]


async def test_function_calling(client: AsyncOpenAI) -> None:
    question = {"role": "user", "content": "What is the weather in Paris?"}
    first = await client.chat.completions.create(
        model="gpt-4o",
        messages=[question],  # type: ignore[list-item]
        tools=[WEATHER],
    )
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    assert set(json.loads(calls[0].function.arguments)) >= {"city", "unit"}
    second = await client.chat.completions.create(
        model="gpt-4o",
        messages=[
            question,  # type: ignore[list-item]
            first.choices[0].message.model_dump(exclude_none=True),  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": calls[0].id, "content": "18 degrees"},
        ],
        tools=[WEATHER],
    )
    assert "18 degrees" in (second.choices[0].message.content or "")


async def test_function_calling_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        stream=True,
    )
    name, arguments = "", ""
    async for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0
            assert call.function is not None
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert set(json.loads(arguments)) >= {"city", "unit"}


async def test_completions(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon")
    assert answer.object == "text_completion"
    assert answer.choices[0].text


async def test_completions_streamed_for_several_prompts(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt=["Once", "Twice"], stream=True
    )
    seen = {chunk.choices[0].index async for chunk in stream if chunk.choices}
    assert seen == {0, 1}


async def test_embeddings(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(
        model="text-embedding-3-small", input=["a river", "the river", "stock market"]
    )
    river, same, market = (item.embedding for item in answer.data)

    def likeness(other: list[float]) -> float:
        return sum(a * b for a, b in zip(river, other, strict=True))

    assert likeness(same) > likeness(market)


async def test_a_refusal_of_the_gateway_is_an_error_of_the_client(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=[])
    assert refused.value.body == {
        "message": "request body doesn't contain valid prompts: expected a non-empty array "
        "'messages', for route type llm/v1/chat"
    }


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("error-429", openai.RateLimitError),
        ("error-500", openai.InternalServerError),
        ("error-404", openai.NotFoundError),
    ],
)
async def test_an_error_of_the_provider_arrives_as_it_was(
    client: AsyncOpenAI, model: str, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], stream=True
        )
    assert raised.value.response.headers["content-type"].startswith("application/json")
    assert raised.value.response.headers["x-stand-in"] == "kong-ai-proxy"
