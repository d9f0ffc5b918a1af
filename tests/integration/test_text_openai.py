"""The official `openai` client chats with every provider through Kong and sees OpenAI's answers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from pydantic import BaseModel

from tests.integration import text_world
from tests.integration.text_world import (
    BACKENDS,
    CLIENTS_OWN,
    PNG,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Place,
    World,
    but,
    drain,
    on,
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


class City(BaseModel):
    name: str
    people: int


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


@but(BACKENDS, "llama2-raw")
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
    counts = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert counts == (12, 8)
    assert answer.usage.total_tokens == 20
    assert raw.headers["x-kong-llm-model"] == place.header
    assert raw.headers["content-type"].startswith("application/json")


@on("llama2-raw")
async def test_usage_is_estimated_where_nobody_counts(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Rivers run to the sea, all of them.")
    answer = await client.chat.completions.create(model=place.model, messages=[QUESTION])
    assert answer.choices[0].message.content == "Rivers run to the sea, all of them."
    assert answer.usage
    assert 2 < answer.usage.completion_tokens < 20
    assert 2 < answer.usage.prompt_tokens < 30


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


@but(BACKENDS, "databricks")
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
    assert (chunks[-1].choices == []) == (place.name != "mistral")  # who has its own place for it
    usage = chunks[-1].usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 8, 20)


@on("databricks")
async def test_a_stream_tells_an_estimate_where_nobody_counts(
    client: AsyncOpenAI, place: Place
) -> None:
    place.upstream.script(text="Rivers run to the sea, all of them.")
    stream = await client.chat.completions.create(
        model=place.model,
        messages=[QUESTION],
        stream=True,
        stream_options={"include_usage": True},
    )
    usages = [chunk.usage async for chunk in stream]
    assert [usage.completion_tokens > 2 for usage in usages if usage] == [True]


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


@but(BACKENDS, *NO_TOOLS)
async def test_a_tool_can_be_demanded(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(tool_calls=[TIME])
    answer = await client.chat.completions.create(
        model=place.model,
        messages=[QUESTION],
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "get_time"}},
    )
    assert called(answer.choices[0].message) == BOTH[1:]


@on(
    "openai", "azure", "anthropic", "gemini", "bedrock", "cohere", "mistral", "ollama", "databricks"
)
async def test_words_arrive_as_they_are_said(client: AsyncOpenAI, place: Place) -> None:
    hold = place.speak_in_part()
    stream = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], stream=True
    )
    texts = []
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            texts.append(chunk.choices[0].delta.content)
            hold.set()
    assert texts[0].startswith("one")
    assert "seven" not in texts[0]
    assert "".join(texts) == "one two three four five six seven"


@but(BACKENDS, "llama2-raw")
async def test_several_system_and_developer_messages_are_kept(
    client: AsyncOpenAI, place: Place
) -> None:
    await client.chat.completions.create(
        model=place.model,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            QUESTION,
            {"role": "assistant", "content": "Mild."},
            {"role": "system", "content": "Be French."},
            {"role": "user", "content": "And tomorrow?"},
        ],
    )
    body = place.upstream.requests[-1].body
    for said in (b"Be brief.", b"Be kind.", b"Be French.", b"Mild.", b"And tomorrow?"):
        assert body.count(said) == 1
    assert body.index(b"Be brief.") < body.index(b"Be kind.")


@pytest.mark.parametrize("finish", ["length", "content_filter"])
@on("openai", "anthropic", "gemini", "vertex", "bedrock", "huggingface")
async def test_why_it_stopped(client: AsyncOpenAI, place: Place, finish: Any) -> None:
    if (place.name, finish) == ("huggingface", "content_filter"):
        pytest.skip("TGI has no such reason")
    place.upstream.script(text="To the", finish=finish)
    answer = await client.chat.completions.create(model=place.model, messages=[QUESTION])
    assert answer.choices[0].finish_reason == finish


@on(
    *("openai", "azure", "anthropic", "gemini", "vertex", "bedrock", "bedrock-claude"),
    *("ollama", "llama2-ollama", "vllm", "mistral", "huggingface", "cohere"),
)
async def test_images_as_data_url(client: AsyncOpenAI, place: Place) -> None:
    await client.chat.completions.create(
        model=place.model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                ],
            }
        ],
    )
    assert PNG.encode() in place.upstream.requests[-1].body


@on("openai", "anthropic", "gemini", "vertex", "mistral", "cohere", "ollama", "huggingface", "vllm")
async def test_structured_output(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text='{"name":"Bern","people":133000}')
    answer = await client.chat.completions.parse(
        model=place.model, messages=[QUESTION], response_format=City
    )
    assert answer.choices[0].message.parsed == City(name="Bern", people=133000)
    assert b'"people"' in place.upstream.requests[-1].body


REASONING = {
    "openai": "o3-mini",
    "anthropic": "claude-sonnet-4-6",
    "bedrock-claude": "eu.anthropic.claude-sonnet-4-6",
    "gemini": "gemini-2.5-flash",
    "vertex": "gemini-2.5-flash",
    "ollama": "gpt-oss",
    "xai": "grok-3-mini",
}


@on(*REASONING)
async def test_reasoning_effort(client: AsyncOpenAI, place: Place) -> None:
    """Every provider has its own member for it."""
    await client.chat.completions.create(
        model=REASONING[place.name],
        messages=[QUESTION],
        reasoning_effort="low",
        max_completion_tokens=4000,
    )
    body = place.upstream.requests[-1].body
    assert re.search(rb"think|reasoning_effort|effort", body)


@on("anthropic", "bedrock", "bedrock-claude", "cohere", "deepseek", "huggingface", "ollama")
async def test_thoughts_are_reasoning_content(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    answer = await client.chat.completions.create(model=place.model, messages=[QUESTION])
    message = answer.choices[0].message
    assert message.content == "Rain."
    assert (message.model_extra or {}).get("reasoning_content") == "Let me see."


@on("anthropic", "bedrock", "bedrock-claude", "cohere", "deepseek", "huggingface", "ollama")
async def test_thoughts_are_reasoning_content_streamed(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    stream = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert text(chunks) == "Rain."
    thoughts = [(c.choices[0].delta.model_extra or {}).get("reasoning_content") for c in chunks]
    assert "".join(thought or "" for thought in thoughts) == "Let me see."


@on("gemini", "vertex")
async def test_geminis_thoughts_are_tagged(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    answer = await client.chat.completions.create(model=place.model, messages=[QUESTION])
    content = answer.choices[0].message.content or ""
    assert re.fullmatch(r"<thought>\s*Let me see\.\s*</thought>\s*Rain\.", content)


@on("anthropic", "gemini", "bedrock", "openai", "azure")
async def test_details_of_usage(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Rain.", usage=Usage(input=1200, output=90, cached=1000))
    answer = await client.chat.completions.create(model=place.model, messages=[QUESTION])
    usage = answer.usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1200, 90, 1290)
    assert usage.prompt_tokens_details
    assert usage.prompt_tokens_details.cached_tokens == 1000


@but(BACKENDS, *NO_TOOLS, "cohere", "huggingface")
async def test_text_beside_calls_survives(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Let me look.", tool_calls=[TIME])
    answer = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], tools=TOOLS
    )
    assert answer.choices[0].message.content == "Let me look."
    assert called(answer.choices[0].message) == BOTH[1:]


@on("anthropic", "bedrock", "cohere", "gemini", "ollama")
async def test_settings_nobody_has_there_are_named(client: AsyncOpenAI, place: Place) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=place.model, messages=[QUESTION], logit_bias={"1": 5}, temperature=0.5, stop="END"
    )
    assert raw.headers["x-kong-ai-dropped-params"] == "logit_bias"
    body = place.upstream.requests[-1].body
    assert b"END" in body
    assert b"0.5" in body


# ---- completions and embeddings


COMPLETES = [name for name, backend in BACKENDS.items() if backend.completes]
EMBEDS = [name for name, backend in BACKENDS.items() if backend.embeds]


@on(*COMPLETES)
async def test_completions(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text=" upon a time")
    answer = await client.completions.create(
        model=place.backend.completes or "", prompt="Once", max_tokens=50
    )
    assert answer.object == "text_completion"
    assert answer.id
    assert answer.created > 1_500_000_000
    assert (answer.choices[0].text.strip(), answer.choices[0].finish_reason) == (
        *("upon a time", "stop"),
    )
    assert answer.usage
    assert answer.usage.total_tokens > 0


@on(*COMPLETES)
async def test_completions_streamed(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text=" upon a time")
    stream = await client.completions.create(
        model=place.backend.completes or "", prompt="Once", max_tokens=50, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks).strip() == "upon a time"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]


@on(*EMBEDS)
async def test_embeddings(client: AsyncOpenAI, place: Place) -> None:
    """The client asks for base64 and unpacks it; no other provider has that."""
    answer = await client.embeddings.create(model=place.backend.embeds or "", input="a river")
    assert answer.object == "list"
    assert [item.index for item in answer.data] == [0]
    assert len(answer.data[0].embedding) == 8
    assert answer.model == place.backend.embeds
    assert answer.usage.total_tokens >= 0


SEVERAL = [name for name in EMBEDS if name != "bedrock"]


@on(*SEVERAL)
async def test_embeddings_of_several_texts(client: AsyncOpenAI, place: Place) -> None:
    answer = await client.embeddings.create(
        model=place.backend.embeds or "", input=["a river", "a bridge"], encoding_format="float"
    )
    first, second = answer.data
    assert (first.index, second.index) == (0, 1)
    assert first.embedding != second.embedding


# ---- errors


@pytest.mark.parametrize("streamed", [False, True], ids=["one-shot", "streamed"])
@pytest.mark.parametrize(
    ("status", "error"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError)],
)
@on(*(name for name in BACKENDS if name not in ("llama2-ollama", "mistral-ollama", "cerebras")))
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: AsyncOpenAI,
    place: Place,
    status: int,
    error: type[openai.APIStatusError],
    streamed: bool,
) -> None:
    place.upstream.script(status=status, message="Not today.", headers={"Retry-After": "7"})
    with pytest.raises(error, match="Not today") as raised:
        await client.chat.completions.create(
            model=place.model, messages=[QUESTION], stream=streamed
        )
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.response.headers["content-type"].startswith("application/json")


@on("anthropic", "bedrock", "gemini", "cohere", "mistral", "ollama")
async def test_what_the_provider_calls_wrong_is_a_bad_request(
    client: AsyncOpenAI, place: Place
) -> None:
    place.upstream.script(status=400, message="No such voice.")
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)) as raised:
        await client.chat.completions.create(model=place.model, messages=[QUESTION])
    assert "No such voice." in raised.value.response.text


@on("anthropic", "vertex-claude")
async def test_overloaded_is_529(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(status=529, message="Overloaded")
    with pytest.raises(openai.InternalServerError, match="Overloaded") as raised:
        await client.chat.completions.create(model=place.model, messages=[QUESTION])
    assert raised.value.status_code == 529


CONVERTED = ("anthropic", "bedrock", "vertex-claude", "gemini", "vertex", "cohere", "ollama")


@on(*CONVERTED, "huggingface", "mistral", "openai")
async def test_an_error_inside_a_stream_is_raised(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    stream = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], stream=True
    )
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError, match="Broken pipe"):
        await drain(stream, chunks)
    assert text(chunks).startswith("one")
    assert not [c for c in chunks if c.choices and c.choices[0].finish_reason]


@on(*CONVERTED)
async def test_an_error_before_the_first_word_is_a_status(
    client: AsyncOpenAI, place: Place
) -> None:
    place.upstream.script(text="one two", stream_error="Broken pipe", error_after=0)
    with pytest.raises(openai.APIStatusError, match="Broken pipe") as raised:
        await client.chat.completions.create(model=place.model, messages=[QUESTION], stream=True)
    assert raised.value.status_code >= 400


@on(*CONVERTED, "openai")
async def test_a_stream_that_breaks_off_is_an_error(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="one two three four " * 20, cut=900)
    stream = await client.chat.completions.create(
        model=place.model, messages=[QUESTION], stream=True
    )
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
        await drain(stream, chunks)
    assert not [c for c in chunks if c.choices and c.choices[0].finish_reason]
