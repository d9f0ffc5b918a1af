"""The official `cohere` client talks to Cohere and to other providers through Kong and sees
Cohere's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import cohere
import httpx
import pytest
import pytest_asyncio
from cohere.core.api_error import ApiError

from tests.integration import text_world
from tests.integration.text_world import (
    CLIENTS_OWN,
    PNG,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Place,
    drain,
    on,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("cohere",)
ALL = (
    *("cohere", "openai", "azure", "anthropic", "bedrock", "bedrock-claude", "gemini", "vertex"),
    *("mistral", "huggingface", "ollama"),
)
gateway, world = text_world.gateway, text_world.world
place = text_world.places("cohere", ALL)

QUESTION = cohere.UserChatMessageV2(content="What is it like in Zürich?")
TOOLS = [
    cohere.ToolV2(
        type="function",
        function=cohere.ToolV2Function(name=name, description="", parameters=parameters),
    )
    for name, parameters in (("get_weather", WEATHER_PARAMETERS), ("get_time", TIME_PARAMETERS))
]
BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transport() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
def client(place: Place, transport: httpx.AsyncClient) -> cohere.AsyncClientV2:
    return cohere.AsyncClientV2(
        CLIENTS_OWN, base_url=place.url, timeout=20, max_retries=0, httpx_client=transport
    )


def said(answer: cohere.V2ChatResponse) -> str:
    return "".join(b.text for b in answer.message.content or () if b.type == "text")


def called(calls: list[cohere.ToolCallV2] | None) -> list[tuple[str | None, Any]]:
    """Names and parsed arguments."""
    assert calls
    assert len({call.id for call in calls}) == len(calls)
    functions = [call.function for call in calls if call.function]
    return [(each.name, json.loads(each.arguments or "")) for each in functions]


async def events_of(client: cohere.AsyncClientV2, place: Place, **more: Any) -> list[Any]:
    stream = client.chat_stream(model=place.model, messages=[QUESTION], **more)
    return [event async for event in stream]


def text_of(events: list[Any]) -> str:
    deltas = [each.delta.message.content for each in events if each.type == "content-delta"]
    return "".join(content.text or "" for content in deltas)


async def test_chat(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    raw = await client.with_raw_response.chat(
        model=place.model,
        messages=[cohere.SystemChatMessageV2(content="Be brief."), QUESTION],
        max_tokens=99,
    )
    answer = raw.data
    assert answer.id
    assert answer.message.role == "assistant"
    assert said(answer) == "Rivers run – to the sea."
    assert answer.finish_reason == "COMPLETE"
    assert answer.usage
    assert answer.usage.tokens
    assert (answer.usage.tokens.input_tokens, answer.usage.tokens.output_tokens) == (12, 8)
    assert answer.usage.billed_units
    assert answer.usage.billed_units.output_tokens == 8
    assert raw.headers["x-kong-llm-model"] == place.header
    assert b"Be brief." in place.upstream.requests[-1].body
    assert b"99" in place.upstream.requests[-1].body


async def test_chat_streamed(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    events = await events_of(client, place)
    assert text_of(events) == "Rivers run – to the sea."
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == [
        *("message-start", "content-start", "content-delta", "content-end", "message-end"),
    ]
    assert [kinds.count(kind) for kind in ("message-start", "message-end")] == [1, 1]
    assert events[0].id
    end = events[-1].delta
    assert end.finish_reason == "COMPLETE"
    assert (end.usage.tokens.input_tokens, end.usage.tokens.output_tokens) == (12, 8)


async def test_words_arrive_as_they_are_said(client: cohere.AsyncClientV2, place: Place) -> None:
    hold = place.speak_in_part()
    texts = []
    async for event in client.chat_stream(model=place.model, messages=[QUESTION]):
        if event.type == "content-delta":
            texts.append(text_of([event]))
            hold.set()
    assert texts[0].startswith("one")
    assert "seven" not in texts[0]
    assert "".join(texts) == "one two three four five six seven"


async def test_parallel_calls(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    answer = await client.chat(model=place.model, messages=[QUESTION], tools=TOOLS)
    assert called(answer.message.tool_calls) == BOTH
    assert answer.finish_reason == "TOOL_CALL"


async def test_parallel_calls_streamed(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    events = await events_of(client, place, tools=TOOLS)
    calls: dict[int, tuple[str, str]] = {}
    for event in events:
        if event.type == "tool-call-start":
            function = event.delta.message.tool_calls.function
            calls[event.index] = (function.name, function.arguments or "")
        elif event.type == "tool-call-delta":
            name, arguments = calls[event.index]
            more = event.delta.message.tool_calls.function.arguments
            calls[event.index] = (name, arguments + more)
    assert [(name, json.loads(arguments)) for name, arguments in calls.values()] == BOTH
    assert events[-1].delta.finish_reason == "TOOL_CALL"


async def test_results_of_calls_go_back(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.chat(model=place.model, messages=[QUESTION], tools=TOOLS)
    asked = cohere.AssistantChatMessageV2(
        tool_calls=first.message.tool_calls, tool_plan=first.message.tool_plan
    )
    results = [
        cohere.ToolChatMessageV2(tool_call_id=call.id or "", content=f"result of {number}")
        for number, call in enumerate(first.message.tool_calls or ())
    ]
    second = await client.chat(
        model=place.model, messages=[QUESTION, asked, *reversed(results)], tools=TOOLS
    )
    assert said(second) == "18 °C at noon."
    for part in (b"result of 0", b"result of 1"):
        assert part in place.upstream.requests[-1].body


DEMANDS = {
    "cohere": b'"tool_choice":"REQUIRED"',
    "openai": b'"tool_choice":"required"',
    "anthropic": b'"tool_choice":{"type":"any"}',
    "bedrock": b'"toolChoice":{"any":{}}',
    "gemini": b'"mode":"ANY"',
    "mistral": b'"tool_choice":"required"',
}


@on(*DEMANDS)
async def test_a_tool_is_demanded(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(tool_calls=[TIME])
    answer = await client.chat(
        model=place.model, messages=[QUESTION], tools=TOOLS, tool_choice="REQUIRED"
    )
    assert called(answer.message.tool_calls) == BOTH[1:]
    assert DEMANDS[place.name] in place.upstream.requests[-1].body


@pytest.mark.parametrize(("finish", "reason"), [("length", "MAX_TOKENS"), ("stop", "COMPLETE")])
async def test_why_it_stopped(
    client: cohere.AsyncClientV2, place: Place, finish: str, reason: str
) -> None:
    place.upstream.script(text="To the", finish=finish)
    answer = await client.chat(model=place.model, messages=[QUESTION])
    assert answer.finish_reason == reason


@on("cohere", "openai", "anthropic", "gemini", "bedrock", "ollama")
async def test_images(client: cohere.AsyncClientV2, place: Place) -> None:
    image = cohere.ImageUrl(url=f"data:image/png;base64,{PNG}")
    message = cohere.UserChatMessageV2(
        content=[
            cohere.TextContent(text="What is this?"),
            cohere.ImageUrlContent(image_url=image),
        ]
    )
    await client.chat(model=place.model, messages=[message])
    assert PNG.encode() in place.upstream.requests[-1].body


@on("cohere", "anthropic", "bedrock", "bedrock-claude")
async def test_thinking(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    answer = await client.chat(
        model=place.model,
        messages=[QUESTION],
        max_tokens=4000,
        thinking=cohere.Thinking(type="enabled", token_budget=1024),
    )
    assert answer.message.content
    thought = answer.message.content[0]
    assert thought.type == "thinking"
    assert thought.thinking == "Let me see."
    assert said(answer) == "Rain."


@on("cohere", "openai", "gemini", "mistral", "ollama")
async def test_a_schema_for_the_answer(client: cohere.AsyncClientV2, place: Place) -> None:
    place.upstream.script(text='{"city":"Bern"}')
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    answer = await client.chat(
        model=place.model,
        messages=[QUESTION],
        response_format=cohere.JsonObjectResponseFormatV2(json_schema=schema),
    )
    assert json.loads(said(answer)) == {"city": "Bern"}
    assert b'"city"' in place.upstream.requests[-1].body


@on("openai", "anthropic", "bedrock", "gemini", "mistral", "huggingface", "ollama")
async def test_settings_have_the_providers_names(
    client: cohere.AsyncClientV2, place: Place
) -> None:
    await client.chat(
        model=place.model,
        messages=[QUESTION],
        max_tokens=123,
        temperature=0.5,
        stop_sequences=["END"],
        p=0.75,
    )
    body = place.upstream.requests[-1].body
    for value in (b"123", b"END", b"0.5"):
        assert value in body
    assert b"0.75" in body or place.name == "anthropic"


# ---- embeddings, rerank, generate


@on("cohere", "openai", "azure", "ollama", "bedrock-claude", "gemini", "mistral")
async def test_embeddings(client: cohere.AsyncClientV2, place: Place) -> None:
    answer = await client.embed(
        model=place.backend.embeds or "",
        input_type="search_document",
        texts=["a river", "a bridge"],
        embedding_types=["float"],
    )
    assert answer.embeddings.float_
    first, second = answer.embeddings.float_
    assert len(first) == len(second) == 8
    assert first != second


@on("cohere")
async def test_reranking_goes_through(client: cohere.AsyncClientV2, place: Place) -> None:
    answer = await client.rerank(model="rerank-v3.5", query="rivers", documents=["a", "b"])
    assert [result.index for result in answer.results] == [0, 1]
    assert place.upstream.requests[-1].path == "/v2/rerank"


@on("openai", "anthropic")
async def test_nobody_else_reranks(client: cohere.AsyncClientV2, place: Place) -> None:
    with pytest.raises(cohere.NotFoundError):
        await client.rerank(model="rerank-v3.5", query="rivers", documents=["a"])
    assert place.upstream.requests == []


# ---- errors


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, cohere.TooManyRequestsError), (500, cohere.InternalServerError)],
)
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: cohere.AsyncClientV2, place: Place, status: int, error: type[ApiError]
) -> None:
    place.upstream.script(status=status, message="Not today.", headers={"Retry-After": "7"})
    with pytest.raises(error, match="Not today") as raised:
        await client.chat(model=place.model, messages=[QUESTION])
    assert raised.value.status_code == status
    assert (raised.value.headers or {})["retry-after"] == "7"
    assert "Not today." in raised.value.body["message"]


async def test_an_error_of_the_provider_instead_of_a_stream(
    client: cohere.AsyncClientV2, place: Place
) -> None:
    place.upstream.script(status=429, message="Not today.")
    with pytest.raises(cohere.TooManyRequestsError, match="Not today"):
        await events_of(client, place)


@on("cohere", "openai", "anthropic", "bedrock", "gemini", "huggingface", "ollama")
async def test_an_error_inside_a_stream_ends_it(client: cohere.AsyncClientV2, place: Place) -> None:
    """Cohere tells errors in the last event, which its client does not raise."""
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    events: list[Any] = []
    await drain(client.chat_stream(model=place.model, messages=[QUESTION]), events)
    assert text_of(events).startswith("one")
    assert events[-1].type == "message-end"
    assert events[-1].delta.finish_reason == "ERROR"
    assert "Broken pipe" in events[-1].delta.error
