"""The official `google-genai` client talks to Gemini, public and on Vertex, and to other providers
through Kong and sees Gemini's answers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from google import genai
from google.genai import errors, types

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
    drain,
    on,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("gemini",)
OWN = ("gemini", "vertex")
OTHERS = (
    *("openai", "azure", "anthropic", "bedrock-claude", "vertex-claude", "bedrock", "cohere"),
    *("mistral", "huggingface", "ollama"),
)
ALL = (*OWN, *OTHERS)
gateway, world = text_world.gateway, text_world.world
place = text_world.places("gemini", ALL)

QUESTION = "What is it like in Zürich?"
TOOLS = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="get_weather", parameters_json_schema=WEATHER_PARAMETERS),
        types.FunctionDeclaration(name="get_time", parameters_json_schema=TIME_PARAMETERS),
    ]
)
WITH_TOOLS = types.GenerateContentConfig(
    tools=[TOOLS],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)
BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transport() -> AsyncIterator[httpx.AsyncClient]:
    """What the clients send with: left to themselves they take aiohttp, against its advice."""
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture(scope="module")
def unused() -> Iterator[httpx.Client]:
    """What they would send with if they were not asynchronous, made once because it is slow."""
    with httpx.Client() as client:
        yield client


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, genai.Client]]:
    """Those that were made, by address: each loads certificates, which takes its time."""
    made: dict[str, genai.Client] = {}
    yield made
    for client in made.values():
        client.close()


@pytest.fixture
def options(place: Place, transport: httpx.AsyncClient, unused: httpx.Client) -> types.HttpOptions:
    return types.HttpOptions(
        base_url=place.url,
        timeout=20_000,
        httpx_async_client=transport,
        httpx_client=unused,
    )


@pytest.fixture
def client(
    place: Place, options: types.HttpOptions, clients: dict[str, genai.Client]
) -> genai.Client:
    """Of Gemini's public API."""
    if place.url not in clients:
        clients[place.url] = genai.Client(api_key=CLIENTS_OWN, http_options=options)
    return clients[place.url]


def called(answer: types.GenerateContentResponse) -> list[tuple[str | None, object]]:
    """The calls of an answer: names and arguments."""
    return [(call.name, call.args) for call in answer.function_calls or []]


async def streamed(
    client: genai.Client, place: Place, config: types.GenerateContentConfig | None = None
) -> list[types.GenerateContentResponse]:
    stream = await client.aio.models.generate_content_stream(
        model=place.model, contents=QUESTION, config=config
    )
    return [chunk async for chunk in stream]


def reasons(chunks: list[types.GenerateContentResponse]) -> list[types.FinishReason]:
    found = [each.candidates[0].finish_reason for each in chunks if each.candidates]
    return [reason for reason in found if reason]


async def test_content(client: genai.Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    answer = await client.aio.models.generate_content(
        model=place.model,
        contents=QUESTION,
        config=types.GenerateContentConfig(system_instruction="Be brief.", max_output_tokens=99),
    )
    assert answer.text == "Rivers run – to the sea."
    assert reasons([answer]) == [types.FinishReason.STOP]
    assert answer.candidates
    assert answer.candidates[0].content
    assert answer.candidates[0].content.role == "model"
    assert answer.model_version == place.model
    assert answer.response_id
    usage = answer.usage_metadata
    assert usage
    counts = (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count)
    assert counts == (12, 8, 20)
    assert answer.sdk_http_response
    headers = {k.lower(): v for k, v in (answer.sdk_http_response.headers or {}).items()}
    assert headers["x-kong-llm-model"] == place.header
    assert b"Be brief." in place.upstream.requests[-1].body
    assert b"99" in place.upstream.requests[-1].body


async def test_content_streamed(client: genai.Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    chunks = await streamed(client, place)
    assert "".join(chunk.text or "" for chunk in chunks) == "Rivers run – to the sea."
    assert reasons(chunks) == [types.FinishReason.STOP]
    assert {chunk.model_version for chunk in chunks} == {place.model}
    usage = chunks[-1].usage_metadata
    assert usage
    assert (usage.prompt_token_count, usage.candidates_token_count) == (12, 8)


async def test_words_arrive_as_they_are_said(client: genai.Client, place: Place) -> None:
    hold = place.speak_in_part()
    stream = await client.aio.models.generate_content_stream(model=place.model, contents=QUESTION)
    texts = []
    async for chunk in stream:
        texts.append(chunk.text or "")
        hold.set()
    assert texts[0].startswith("one")
    assert "seven" not in texts[0]
    assert "".join(texts) == "one two three four five six seven"


async def test_parallel_calls(client: genai.Client, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    answer = await client.aio.models.generate_content(
        model=place.model, contents=QUESTION, config=WITH_TOOLS
    )
    assert called(answer) == BOTH
    assert reasons([answer]) == [types.FinishReason.STOP]


async def test_parallel_calls_streamed(client: genai.Client, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    chunks = await streamed(client, place, WITH_TOOLS)
    assert [call for chunk in chunks for call in called(chunk)] == BOTH
    assert reasons(chunks) == [types.FinishReason.STOP]


async def test_results_of_calls_go_back(client: genai.Client, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    chat = client.aio.chats.create(model=place.model, config=WITH_TOOLS)
    first = await chat.send_message(QUESTION)
    results = [
        types.Part(
            function_response=types.FunctionResponse(
                id=call.id, name=call.name, response={"result": f"result of {call.name}"}
            )
        )
        for call in first.function_calls or []
    ]
    second = await chat.send_message([*reversed(results)])
    assert second.text == "18 °C at noon."
    assert b"result of get_weather" in place.upstream.requests[-1].body
    assert b"result of get_time" in place.upstream.requests[-1].body


async def test_a_tool_can_be_demanded(client: genai.Client, place: Place) -> None:
    place.upstream.script(tool_calls=[TIME])
    calling = types.FunctionCallingConfig(
        mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["get_time"]
    )
    answer = await client.aio.models.generate_content(
        model=place.model,
        contents=QUESTION,
        config=WITH_TOOLS.model_copy(
            update={"tool_config": types.ToolConfig(function_calling_config=calling)}
        ),
    )
    assert called(answer) == BOTH[1:]


@on(*OWN, "openai", "anthropic", "bedrock", "ollama")
async def test_images(client: genai.Client, place: Place) -> None:
    image = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    await client.aio.models.generate_content(
        model=place.model, contents=[image, types.Part(text="What is this?")]
    )
    assert PNG.encode() in place.upstream.requests[-1].body


THINK = types.GenerateContentConfig(
    max_output_tokens=4000,
    thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=1024),
)


def thoughts(chunks: list[types.GenerateContentResponse]) -> str:
    parts = [part for chunk in chunks for part in chunk.parts or []]
    return "".join(part.text or "" for part in parts if part.thought)


@on(*OWN, "anthropic", "bedrock-claude", "bedrock", "cohere")
async def test_thoughts(client: genai.Client, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    answer = await client.aio.models.generate_content(
        model=place.model, contents=QUESTION, config=THINK
    )
    assert thoughts([answer]) == "Let me see."
    assert answer.text == "Rain."


@on(*OWN, "anthropic", "bedrock-claude", "bedrock", "cohere")
async def test_thoughts_streamed(client: genai.Client, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    chunks = await streamed(client, place, THINK)
    assert thoughts(chunks) == "Let me see."
    assert "".join(chunk.text or "" for chunk in chunks) == "Rain."


@on(*OWN, "openai", "mistral", "cohere", "anthropic", "ollama")
async def test_a_schema_for_the_answer(client: genai.Client, place: Place) -> None:
    place.upstream.script(text='{"city":"Bern"}')
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = await client.aio.models.generate_content(
        model=place.model,
        contents=QUESTION,
        config=types.GenerateContentConfig(
            response_mime_type="application/json", response_json_schema=schema
        ),
    )
    assert json.loads(answer.text or "") == {"city": "Bern"}
    assert b'"city"' in place.upstream.requests[-1].body


@on("openai", "anthropic", "bedrock", "cohere", "huggingface", "ollama")
async def test_settings_have_the_providers_names(client: genai.Client, place: Place) -> None:
    config = types.GenerateContentConfig(
        temperature=0.5, max_output_tokens=123, stop_sequences=["END"]
    )
    await client.aio.models.generate_content(model=place.model, contents=QUESTION, config=config)
    body = place.upstream.requests[-1].body
    assert b"123" in body
    assert b"END" in body
    assert b"0.5" in body


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", types.FinishReason.MAX_TOKENS), ("stop", types.FinishReason.STOP)],
)
@but(ALL, "azure")
async def test_why_it_stopped(
    client: genai.Client, place: Place, finish: str, reason: types.FinishReason
) -> None:
    place.upstream.script(text="To the", finish=finish)
    answer = await client.aio.models.generate_content(model=place.model, contents=QUESTION)
    assert reasons([answer]) == [reason]


# ---- embeddings and tokens


@on("gemini", "openai", "azure", "cohere", "ollama", "bedrock-claude")
async def test_embeddings(client: genai.Client, place: Place) -> None:
    answer = await client.aio.models.embed_content(
        model=place.backend.embeds or "", contents=["a river", "a bridge"]
    )
    assert answer.embeddings
    first, second = (each.values for each in answer.embeddings)
    assert first
    assert second
    assert first != second
    assert len(first) == len(second) == 8


@on(*OWN)
async def test_tokens_are_counted_where_gemini_is(client: genai.Client, place: Place) -> None:
    place.upstream.script(usage=Usage(input=33))
    counted = await client.aio.models.count_tokens(model=place.model, contents=QUESTION)
    assert counted.total_tokens == 33


# ---- errors


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL")]
)
@on(*OWN, "openai", "anthropic", "bedrock", "cohere", "ollama")
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: genai.Client, place: Place, status: int, kind: str
) -> None:
    place.upstream.script(status=status, message="Not today.")
    with pytest.raises(errors.APIError, match="Not today") as raised:
        await client.aio.models.generate_content(model=place.model, contents=QUESTION)
    assert (raised.value.code, raised.value.status) == (status, kind)


@on(*OWN, "openai", "anthropic", "bedrock", "cohere", "ollama")
async def test_an_error_of_the_provider_instead_of_a_stream(
    client: genai.Client, place: Place
) -> None:
    place.upstream.script(status=429, message="Not today.")
    with pytest.raises(errors.ClientError, match="Not today") as raised:
        await streamed(client, place)
    assert raised.value.code == 429


@on("openai", "anthropic", "bedrock", "cohere", "huggingface", "ollama")
async def test_an_error_inside_a_stream_is_raised(client: genai.Client, place: Place) -> None:
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    stream = await client.aio.models.generate_content_stream(model=place.model, contents=QUESTION)
    chunks: list[types.GenerateContentResponse] = []
    with pytest.raises(errors.APIError, match="Broken pipe"):
        await drain(stream, chunks)
    assert chunks
    assert reasons(chunks) == []


# ---- the client of Vertex


@on("vertex", "gemini", "openai", "anthropic", "vertex-claude")
async def test_the_client_of_vertex(place: Place, options: types.HttpOptions) -> None:
    """Its paths name a project and a location, which are the client's own and do not count."""
    from google.oauth2.credentials import Credentials

    client = genai.Client(
        vertexai=True,
        project="the-clients-project",
        location="us-central1",
        credentials=Credentials(CLIENTS_OWN),  # type: ignore[no-untyped-call]
        http_options=options,
    )
    place.upstream.script(text="To the sea.")
    answer = await client.aio.models.generate_content(model=place.model, contents=QUESTION)
    chunks = await streamed(client, place)
    client.close()
    assert answer.text == "To the sea."
    assert "".join(chunk.text or "" for chunk in chunks) == "To the sea."
    assert "the-clients-project" not in place.upstream.requests[-1].path
