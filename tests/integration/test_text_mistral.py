"""The official `mistralai` client talks to Mistral and to other providers through Kong.

Kong has no client format of Mistral's own, so its client is taken for one of OpenAI's. Where the
two differ it is Mistral's own answers that it can read: it wants a function's name in each piece of
a streamed call, and an id of embeddings.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from mistralai.client import Mistral, models
from mistralai.client.errors import SDKError

from tests.integration import text_world
from tests.integration.text_world import (
    CLIENTS_OWN,
    PNG,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Place,
    but,
    on,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("openai",)
ALL = (
    *("mistral", "openai", "azure", "anthropic", "bedrock", "bedrock-claude", "gemini", "vertex"),
    *("cohere", "huggingface", "ollama", "mistral-ollama"),
)
gateway, world = text_world.gateway, text_world.world
place = text_world.places("openai", ALL)

SYSTEM: Any = models.SystemMessage(content="Be brief.")
QUESTION: Any = models.UserMessage(content="What is it like in Zürich?")
TOOLS = [
    models.Tool(function=models.Function(name=name, parameters=parameters))
    for name, parameters in (("get_weather", WEATHER_PARAMETERS), ("get_time", TIME_PARAMETERS))
]
BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients() -> AsyncIterator[dict[str, Mistral]]:
    """Those that were made, by address: each loads certificates, which takes its time."""
    made: dict[str, Mistral] = {}
    yield made
    async with AsyncExitStack() as stack:
        for client in made.values():
            await stack.enter_async_context(client)


@pytest.fixture
def client(place: Place, clients: dict[str, Mistral]) -> Mistral:
    if place.url not in clients:
        clients[place.url] = Mistral(api_key=CLIENTS_OWN, server_url=place.url, timeout_ms=20_000)
    return clients[place.url]


def called(message: Any) -> list[tuple[str, object]]:
    """The calls of a message: names and parsed arguments."""
    calls = message.tool_calls or []
    assert all(call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


async def streamed(client: Mistral, place: Place, **more: Any) -> list[models.CompletionChunk]:
    async with await client.chat.stream_async(
        model=place.model, messages=[QUESTION], **more
    ) as stream:
        return [event.data async for event in stream]


async def test_chat(client: Mistral, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    answer = await client.chat.complete_async(
        model=place.model, messages=[SYSTEM, QUESTION], max_tokens=99
    )
    assert (answer.object, answer.model) == ("chat.completion", place.model)
    assert answer.id
    assert answer.created > 1_500_000_000
    (choice,) = answer.choices
    assert choice.message
    assert (choice.message.role, choice.message.content) == (
        *("assistant", "Rivers run – to the sea."),
    )
    assert choice.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 8)
    assert b"Be brief." in place.upstream.requests[-1].body
    assert b"99" in place.upstream.requests[-1].body


async def test_chat_streamed(client: Mistral, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.")
    chunks = await streamed(client, place)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(map(str, texts)) == "Rivers run – to the sea."
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason]
    assert reasons == ["stop"]
    assert {chunk.model for chunk in chunks} == {place.model}


async def test_parallel_calls(client: Mistral, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    answer = await client.chat.complete_async(model=place.model, messages=[QUESTION], tools=TOOLS)
    assert called(answer.choices[0].message) == BOTH
    assert answer.choices[0].finish_reason == "tool_calls"


@on("mistral")
async def test_parallel_calls_streamed(client: Mistral, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    chunks = await streamed(client, place, tools=TOOLS)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            at = call.index or 0
            names[at] = names.get(at, "") + (call.function.name or "")
            arguments[at] = arguments.get(at, "") + str(call.function.arguments)
    assert [(names[at], json.loads(arguments[at])) for at in sorted(names)] == BOTH
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@but(ALL, "openai", "azure", "huggingface")
async def test_results_of_calls_go_back(client: Mistral, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.chat.complete_async(model=place.model, messages=[QUESTION], tools=TOOLS)
    asked = first.choices[0].message
    assert asked
    results = [
        models.ToolMessage(
            tool_call_id=call.id, name=call.function.name, content=f"result of {number}"
        )
        for number, call in enumerate(asked.tool_calls or ())
    ]
    messages: list[Any] = [QUESTION, asked, *reversed(results)]
    second = await client.chat.complete_async(model=place.model, messages=messages, tools=TOOLS)
    assert second.choices[0].message
    assert second.choices[0].message.content == "18 °C at noon."
    for part in (b"result of 0", b"result of 1"):
        assert part in place.upstream.requests[-1].body


@but(ALL, "openai", "azure", "huggingface")
async def test_a_tool_is_demanded(client: Mistral, place: Place) -> None:
    """Mistral says `any` for OpenAI's `required`."""
    place.upstream.script(tool_calls=[TIME])
    answer = await client.chat.complete_async(
        model=place.model, messages=[QUESTION], tools=TOOLS, tool_choice="any"
    )
    assert called(answer.choices[0].message) == BOTH[1:]


@on("mistral", "openai", "anthropic", "gemini", "bedrock", "ollama")
async def test_images(client: Mistral, place: Place) -> None:
    image = models.ImageURLChunk(image_url=models.ImageURL(url=f"data:image/png;base64,{PNG}"))
    message = models.UserMessage(content=[models.TextChunk(text="What is this?"), image])
    await client.chat.complete_async(model=place.model, messages=[message])
    assert PNG.encode() in place.upstream.requests[-1].body


@on("mistral", "openai", "gemini", "cohere", "anthropic", "ollama")
async def test_a_schema_for_the_answer(client: Mistral, place: Place) -> None:
    place.upstream.script(text='{"city":"Bern"}')
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = await client.chat.complete_async(
        model=place.model,
        messages=[QUESTION],
        response_format=models.ResponseFormat(
            type="json_schema",
            json_schema=models.JSONSchema(name="answer", schema_definition=schema, strict=True),
        ),
    )
    assert answer.choices[0].message
    assert answer.choices[0].message.content == '{"city":"Bern"}'
    assert b'"city"' in place.upstream.requests[-1].body


@on("mistral")
async def test_what_only_mistral_has_goes_through(client: Mistral, place: Place) -> None:
    await client.chat.complete_async(
        model=place.model, messages=[QUESTION], random_seed=7, safe_prompt=True
    )
    assert (place.sent["random_seed"], place.sent["safe_prompt"]) == (7, True)


@on("mistral")
async def test_embeddings(client: Mistral, place: Place) -> None:
    answer = await client.embeddings.create_async(
        model=place.backend.embeds or "", inputs=["a river", "a bridge"]
    )
    first, second = answer.data
    assert first.embedding
    assert second.embedding
    assert first.embedding != second.embedding
    assert (first.index, second.index) == (0, 1)


@pytest.mark.parametrize("status", [429, 500])
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: Mistral, place: Place, status: int
) -> None:
    place.upstream.script(status=status, message="Not today.", headers={"Retry-After": "7"})
    with pytest.raises(SDKError, match="Not today") as raised:
        await client.chat.complete_async(model=place.model, messages=[QUESTION])
    assert raised.value.status_code == status
    assert raised.value.headers["retry-after"] == "7"


@on("mistral", "anthropic", "gemini", "bedrock", "cohere", "ollama")
async def test_an_error_of_the_provider_instead_of_a_stream(client: Mistral, place: Place) -> None:
    place.upstream.script(status=429, message="Not today.")
    with pytest.raises(SDKError, match="Not today") as raised:
        await streamed(client, place)
    assert raised.value.status_code == 429
