"""The official `anthropic` client talks to Claude, wherever it is hosted, and to other providers
through Kong and sees Anthropic's answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from anthropic.types import (
    Message,
    MessageParam,
    RawMessageStreamEvent,
    ToolParam,
    ToolResultBlockParam,
)

from tests.integration import text_world
from tests.integration.text_world import (
    CLIENTS_OWN,
    PNG,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Place,
    World,
    drain,
    on,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("anthropic",)
CLAUDES = ("anthropic", "bedrock-claude", "vertex-claude")
OTHERS = (
    *("openai", "azure", "gemini", "vertex", "bedrock", "cohere", "mistral", "huggingface"),
    *("ollama", "deepseek", "vllm"),
)
ALL = (*CLAUDES, *OTHERS)
gateway, world = text_world.gateway, text_world.world
place = text_world.places("anthropic", ALL)

TOOLS: list[ToolParam] = [
    {"name": "get_weather", "input_schema": WEATHER_PARAMETERS},
    {"name": "get_time", "description": "The time there.", "input_schema": TIME_PARAMETERS},
]
QUESTION: MessageParam = {"role": "user", "content": "What is it like in Zürich?"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def root(world: World) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=world.running.url,
        api_key=CLIENTS_OWN,
        max_retries=0,
        timeout=20,
        default_headers={"cookie": f"session={CLIENTS_OWN}"},
    ) as client:
        yield client


@pytest.fixture
def client(root: AsyncAnthropic, place: Place) -> AsyncAnthropic:
    return root.with_options(base_url=place.url)


def said(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def called(message: Message) -> list[tuple[str, object]]:
    """The calls of a message: names and arguments."""
    uses = [block for block in message.content if block.type == "tool_use"]
    assert all(use.id for use in uses)
    assert len({use.id for use in uses}) == len(uses)
    return [(use.name, use.input) for use in uses]


BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


async def test_message(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    raw = await client.messages.with_raw_response.create(
        model=place.model, max_tokens=100, system="Be brief.", messages=[QUESTION]
    )
    message = await raw.parse()
    assert message.id
    assert (message.type, message.role, message.model) == ("message", "assistant", place.model)
    assert [block.type for block in message.content] == ["text"]
    assert said(message) == "Rivers run – to the sea."
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 8)
    assert raw.headers["x-kong-llm-model"] == place.header


async def test_message_streamed(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    async with client.messages.stream(
        model=place.model, max_tokens=100, messages=[QUESTION]
    ) as stream:
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(texts) == said(message) == "Rivers run – to the sea."
    assert len(texts) > 4
    assert message.id
    assert (message.role, message.model, message.stop_reason) == (
        *("assistant", place.model, "end_turn"),
    )
    assert message.usage.output_tokens == 8


async def test_events_come_in_anthropics_order(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text="To the sea.")
    stream = await client.messages.create(
        model=place.model, max_tokens=100, messages=[QUESTION], stream=True
    )
    kinds: list[str] = [event.type async for event in stream]
    assert list(dict.fromkeys(kinds)) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    once = ("message_start", "content_block_start", "content_block_stop", "message_stop")
    assert [kinds.count(kind) for kind in once] == [1, 1, 1, 1]


async def test_parallel_calls(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    message = await client.messages.create(
        model=place.model, max_tokens=100, messages=[QUESTION], tools=TOOLS
    )
    assert called(message) == BOTH
    assert message.stop_reason == "tool_use"


async def test_parallel_calls_streamed(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    async with client.messages.stream(
        model=place.model, max_tokens=100, messages=[QUESTION], tools=TOOLS
    ) as stream:
        message = await stream.get_final_message()
    assert called(message) == BOTH
    assert message.stop_reason == "tool_use"


async def test_results_of_calls_go_back(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.messages.create(
        model=place.model, max_tokens=100, messages=[QUESTION], tools=TOOLS
    )
    results: list[ToolResultBlockParam] = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"result of {block.name}"}
        for block in first.content
        if block.type == "tool_use"
    ]
    second = await client.messages.create(
        model=place.model,
        max_tokens=100,
        messages=[
            QUESTION,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [*reversed(results), {"type": "text", "text": "So?"}]},
        ],
        tools=TOOLS,
    )
    assert said(second) == "18 °C at noon."
    assert b"result of get_weather" in place.upstream.requests[-1].body
    assert b"result of get_time" in place.upstream.requests[-1].body
    assert b"So?" in place.upstream.requests[-1].body


async def test_a_tool_can_be_demanded(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(tool_calls=[TIME])
    message = await client.messages.create(
        model=place.model,
        max_tokens=100,
        messages=[QUESTION],
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "get_time"},
    )
    assert called(message) == BOTH[1:]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_tokens"), ("stop", "end_turn")])
async def test_why_it_stopped(
    client: AsyncAnthropic, place: Place, finish: str, reason: str
) -> None:
    place.upstream.script(text="To the", finish=finish)
    message = await client.messages.create(model=place.model, max_tokens=2, messages=[QUESTION])
    assert message.stop_reason == reason


@on("anthropic", "bedrock-claude", "vertex-claude", "gemini", "openai", "bedrock", "ollama")
async def test_images(client: AsyncAnthropic, place: Place) -> None:
    await client.messages.create(
        model=place.model,
        max_tokens=100,
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                    {"type": "text", "text": "What is this?"},
                ],
            }
        ],
    )
    assert PNG.encode() in place.upstream.requests[-1].body


@on(*CLAUDES, "bedrock", "gemini", "cohere", "deepseek")
async def test_thinking(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    message = await client.messages.create(
        model=place.model,
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[QUESTION],
    )
    thought = message.content[0]
    assert thought.type == "thinking"
    assert thought.thinking == "Let me see."
    assert said(message) == "Rain."


@on(*CLAUDES, "bedrock", "gemini", "cohere", "deepseek")
async def test_thinking_streamed(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    async with client.messages.stream(
        model=place.model,
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[QUESTION],
    ) as stream:
        message = await stream.get_final_message()
    thought = message.content[0]
    assert thought.type == "thinking"
    assert thought.thinking == "Let me see."
    assert said(message) == "Rain."


@on(*CLAUDES, "bedrock")
async def test_thoughts_go_back_with_their_signature(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(Turn(thinking="Let me see.", tool_calls=[TIME]), Turn(text="Noon."))
    messages = [QUESTION]
    for _ in range(2):
        message = await client.messages.create(
            model=place.model,
            max_tokens=4000,
            thinking={"type": "enabled", "budget_tokens": 1024},
            messages=messages,
            tools=TOOLS,
        )
        results: list[ToolResultBlockParam] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "12:00"}
            for block in message.content
            if block.type == "tool_use"
        ]
        messages = [
            QUESTION,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": results},
        ]
    assert said(message) == "Noon."
    assert b"c2lnbmVk" in place.upstream.requests[-1].body
    assert b"Let me see." in place.upstream.requests[-1].body


@on(*CLAUDES)
async def test_cached_tokens_are_told(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text="Hm.", usage=Usage(input=1200, output=8, cached=1000))
    message = await client.messages.create(
        model=place.model,
        max_tokens=100,
        system=[{"type": "text", "text": "A long story.", "cache_control": {"type": "ephemeral"}}],
        messages=[QUESTION],
    )
    assert place.sent["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert message.usage.cache_read_input_tokens == 1000
    assert message.usage.input_tokens == 200


@on("bedrock", "gemini", "openai")
async def test_cached_tokens_of_others_are_told(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text="Hm.", usage=Usage(input=1200, output=8, cached=1000))
    message = await client.messages.create(model=place.model, max_tokens=100, messages=[QUESTION])
    assert message.usage.cache_read_input_tokens == 1000
    assert message.usage.input_tokens == 200


@on("anthropic", "vertex-claude")
async def test_tokens_are_counted_where_claude_is(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(usage=Usage(input=33))
    counted = await client.messages.count_tokens(model=place.model, messages=[QUESTION])
    assert counted.input_tokens == 33


@on("openai", "gemini", "bedrock")
async def test_nobody_else_counts_tokens(client: AsyncAnthropic, place: Place) -> None:
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model=place.model, messages=[QUESTION])
    assert place.upstream.requests == []


@pytest.mark.parametrize("streamed", [False, True], ids=["one-shot", "streamed"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
    ],
)
@on(*CLAUDES, "openai", "gemini", "bedrock", "cohere", "ollama")
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: AsyncAnthropic,
    place: Place,
    status: int,
    error: type[anthropic.APIStatusError],
    streamed: bool,
) -> None:
    place.upstream.script(status=status, message="Not today.", headers={"Retry-After": "7"})
    with pytest.raises(error, match="Not today") as raised:
        await client.messages.create(
            model=place.model, max_tokens=100, messages=[QUESTION], stream=streamed
        )
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.response.headers["content-type"].startswith("application/json")


@on("anthropic")
async def test_overloaded_is_529(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(status=529, message="Overloaded")
    with pytest.raises(anthropic.APIStatusError) as raised:
        await client.messages.create(model=place.model, max_tokens=100, messages=[QUESTION])
    assert raised.value.status_code == 529


@on(*CLAUDES, "openai", "gemini", "bedrock", "cohere", "huggingface", "ollama")
async def test_an_error_inside_a_stream_is_raised(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    stream = await client.messages.create(
        model=place.model, max_tokens=100, messages=[QUESTION], stream=True
    )
    events: list[RawMessageStreamEvent] = []
    with pytest.raises(anthropic.APIStatusError, match="Broken pipe"):
        await drain(stream, events)
    assert "content_block_delta" in [event.type for event in events]
    assert events[-1].type != "message_stop"


@on("bedrock-claude", "openai", "gemini", "bedrock", "cohere", "huggingface", "ollama")
async def test_an_error_before_the_first_word_is_a_status(
    client: AsyncAnthropic, place: Place
) -> None:
    place.upstream.script(text="one two", stream_error="Broken pipe", error_after=0)
    with pytest.raises(anthropic.APIStatusError, match="Broken pipe") as raised:
        await client.messages.create(
            model=place.model, max_tokens=100, messages=[QUESTION], stream=True
        )
    assert raised.value.status_code >= 400


@on("openai", "gemini", "mistral")
async def test_what_cannot_be_carried_over_is_the_clients_mistake(
    client: AsyncAnthropic, place: Place
) -> None:
    with pytest.raises(anthropic.BadRequestError) as raised:
        await client.messages.create(
            model=place.model,
            max_tokens=100,
            messages=[{"role": "user", "content": [{"type": "video"}]}],  # type: ignore[list-item, misc]
        )
    assert "messages[0].content[0]" in str(raised.value)
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["type"] == "error"
    assert place.upstream.requests == []


@on("openai", "gemini", "ollama")
async def test_dropped_settings_are_named(client: AsyncAnthropic, place: Place) -> None:
    raw = await client.messages.with_raw_response.create(
        model=place.model,
        max_tokens=100,
        messages=[QUESTION],
        service_tier="auto",
        extra_body={"inference_geo": "eu"},
    )
    assert "inference_geo" in raw.headers["x-kong-ai-dropped-params"]


@on("openai", "gemini", "vertex", "bedrock", "cohere", "mistral", "huggingface", "ollama")
async def test_settings_have_the_providers_names(client: AsyncAnthropic, place: Place) -> None:
    await client.messages.create(
        model=place.model,
        max_tokens=123,
        messages=[QUESTION],
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
    )
    body = place.upstream.requests[-1].body
    assert b"123" in body
    assert b"END" in body
    assert b"0.5" in body


@on("openai", "gemini", "bedrock", "cohere", "mistral", "ollama")
async def test_a_system_prompt_in_several_blocks_is_kept(
    client: AsyncAnthropic, place: Place
) -> None:
    await client.messages.create(
        model=place.model,
        max_tokens=100,
        system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
        messages=[QUESTION],
    )
    body = place.upstream.requests[-1].body
    assert body.index(b"Be brief.") < body.index(b"Be kind.")


@on("anthropic", "openai", "gemini", "vertex", "mistral", "cohere", "ollama")
async def test_a_schema_for_the_answer(client: AsyncAnthropic, place: Place) -> None:
    place.upstream.script(text='{"city":"Bern"}')
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    message = await client.messages.create(
        model=place.model,
        max_tokens=100,
        messages=[QUESTION],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert said(message) == '{"city":"Bern"}'
    assert b'"city"' in place.upstream.requests[-1].body
