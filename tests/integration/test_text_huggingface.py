"""The official `huggingface-hub` client talks to Hugging Face and to other providers through Kong
and sees its answers. It blocks, so it runs in threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huggingface_hub import InferenceClient, TextGenerationOutput
from huggingface_hub.errors import GenerationError, HfHubHTTPError, TextGenerationError

from tests.integration import text_world
from tests.integration.text_world import (
    CLIENTS_OWN,
    PNG,
    TEXT,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Json,
    Place,
    but,
    on,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("huggingface",)
ALL = (
    *("huggingface", "openai", "azure", "anthropic", "bedrock", "bedrock-claude", "gemini"),
    *("vertex", "cohere", "mistral", "ollama"),
)
COMPLETE = ("huggingface", "openai", "azure", "anthropic", "bedrock", "cohere", "llama2-openai")
gateway, world = text_world.gateway, text_world.world
place = text_world.places("huggingface", ALL)

QUESTION = {"role": "user", "content": "What is it like in Zürich?"}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in (("get_weather", WEATHER_PARAMETERS), ("get_time", TIME_PARAMETERS))
]
BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


class Client:
    """An InferenceClient in a thread."""

    def __init__(self, url: str, model: str) -> None:
        self._client = InferenceClient(base_url=url, token=CLIENTS_OWN, timeout=20)
        self._model = model

    async def chat(self, messages: list[Any] | None = None, **more: Any) -> Any:
        return await _in_thread(
            lambda: self._client.chat_completion(messages or [QUESTION], model=self._model, **more)
        )

    async def chat_streamed(
        self, seen: Callable[[Any], None] = lambda _: None, **more: Any
    ) -> list[Any]:
        """The chunks; each is shown to `seen` when it has come."""
        chunks = []

        def read() -> None:
            for chunk in self._client.chat_completion(
                [QUESTION], model=self._model, stream=True, **more
            ):
                seen(chunk)
                chunks.append(chunk)

        await _in_thread(read)
        return chunks

    async def generate(self, prompt: str, **more: Any) -> Any:
        return await _in_thread(lambda: self._client.text_generation(prompt, **more))

    async def generate_streamed(self, prompt: str, **more: Any) -> list[Any]:
        return await _in_thread(  # type: ignore[no-any-return]
            lambda: list(self._client.text_generation(prompt, stream=True, **more))
        )

    def close(self) -> None:
        self._client.exit_stack.close()


async def _in_thread(work: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        return await asyncio.to_thread(work)


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    client = Client(place.url, place.model)
    yield client
    client.close()


@pytest.fixture
def writer(place: Place) -> Iterator[Client]:
    """For texts, whose model is configured."""
    client = Client(place.url + TEXT, "")
    yield client
    client.close()


def called(message: Any) -> list[tuple[str, Any]]:
    """The calls of a message: names and parsed arguments."""
    calls = message.tool_calls or []
    assert all(call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


async def test_chat(client: Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    answer = await client.chat(
        [{"role": "system", "content": "Be brief."}, QUESTION], max_tokens=99
    )
    assert answer.model == place.model
    assert answer.created > 1_500_000_000
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == (
        *("assistant", "Rivers run – to the sea."),
    )
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 8, 20)
    assert b"Be brief." in place.upstream.requests[-1].body
    assert b"99" in place.upstream.requests[-1].body


@but(ALL)
async def test_chat_streamed(client: Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    chunks = await client.chat_streamed(stream_options={"include_usage": True})
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == "Rivers run – to the sea."
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert [chunk for chunk in chunks if chunk.usage] == chunks[-1:]
    assert chunks[-1].usage.total_tokens == 20


@on("huggingface", "openai", "anthropic", "gemini")
async def test_words_arrive_as_they_are_said(client: Client, place: Place) -> None:
    hold = place.speak_in_part()
    loop = asyncio.get_running_loop()
    texts: list[str] = []

    def seen(chunk: Any) -> None:
        if chunk.choices and chunk.choices[0].delta.content:
            texts.append(chunk.choices[0].delta.content)
            loop.call_soon_threadsafe(hold.set)

    await client.chat_streamed(seen=seen)
    assert texts[0].startswith("one")
    assert "seven" not in texts[0]
    assert "".join(texts) == "one two three four five six seven"


async def test_parallel_calls(client: Client, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    answer = await client.chat(tools=TOOLS, tool_choice="auto")
    assert called(answer.choices[0].message) == BOTH
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_parallel_calls_streamed(client: Client, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    chunks = await client.chat_streamed(tools=TOOLS)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in chunks:
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            names.setdefault(call.index, call.function.name)
            arguments[call.index] = arguments.get(call.index, "") + call.function.arguments
    assert [(names[at], json.loads(arguments[at])) for at in sorted(names)] == BOTH


async def test_results_of_calls_go_back(client: Client, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.chat(tools=TOOLS)
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in first.choices[0].message.tool_calls
    ]
    results: list[Json] = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result of {number}"}
        for number, call in enumerate(calls)
    ]
    asked = {"role": "assistant", "tool_calls": calls}
    second = await client.chat([QUESTION, asked, *reversed(results)], tools=TOOLS)
    assert second.choices[0].message.content == "18 °C at noon."
    for part in (b"result of 0", b"result of 1"):
        assert part in place.upstream.requests[-1].body


@on("huggingface", "openai", "anthropic", "gemini", "bedrock", "ollama")
async def test_images(client: Client, place: Place) -> None:
    url = f"data:image/png;base64,{PNG}"
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    await client.chat([{"role": "user", "content": content}])
    assert PNG.encode() in place.upstream.requests[-1].body


@on("anthropic", "bedrock", "cohere", "gemini", "mistral", "openai", "ollama")
async def test_settings_have_the_providers_names(client: Client, place: Place) -> None:
    await client.chat(max_tokens=123, temperature=0.5, stop=["END"])
    body = place.upstream.requests[-1].body
    for value in (b"123", b"0.5", b"END"):
        assert value in body


# ---- text generation


@on(*COMPLETE)
async def test_text(writer: Client, place: Place) -> None:
    place.upstream.script(text=" upon a time")
    text = await writer.generate("Once", max_new_tokens=50, temperature=0.5)
    assert text.strip() == "upon a time"
    body = place.upstream.requests[-1].body
    for value in (b"Once", b"50", b"0.5"):
        assert value in body


@on("huggingface", "openai", "azure", "bedrock")
async def test_text_with_details(writer: Client, place: Place) -> None:
    place.upstream.script(text=" upon a time", finish="length", usage=Usage(input=12, output=8))
    answer: TextGenerationOutput = await writer.generate("Once", details=True)
    assert answer.generated_text.strip() == "upon a time"
    assert answer.details
    assert answer.details.finish_reason == "length"
    assert answer.details.generated_tokens == 8


@on(*COMPLETE)
async def test_text_streamed(writer: Client, place: Place) -> None:
    place.upstream.script(text=" upon a time")
    texts = await writer.generate_streamed("Once", max_new_tokens=50)
    assert "".join(texts).strip() == "upon a time"


@on("ollama", "gemini", "mistral")
async def test_who_only_chats_writes_no_texts(writer: Client, place: Place) -> None:
    with pytest.raises(GenerationError, match=f"provider {place.backend.provider} has no"):
        await writer.generate("Once")
    assert place.upstream.requests == []


# ---- errors


@pytest.mark.parametrize("status", [429, 500])
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: Client, place: Place, status: int
) -> None:
    place.upstream.script(status=status, message="Not today.", headers={"Retry-After": "7"})
    with pytest.raises(HfHubHTTPError) as raised:
        await client.chat()
    assert raised.value.response.status_code == status
    assert raised.value.response.headers["retry-after"] == "7"
    assert "Not today." in raised.value.response.text


@on(*COMPLETE)
async def test_an_error_instead_of_a_text(writer: Client, place: Place) -> None:
    place.upstream.script(status=429, message="Not today.")
    with pytest.raises((TextGenerationError, HfHubHTTPError)) as raised:
        await writer.generate("Once")
    assert "Not today." in str(raised.value)


@on("huggingface", "openai", "anthropic", "bedrock", "gemini", "cohere", "ollama")
async def test_an_error_inside_a_stream_is_raised(client: Client, place: Place) -> None:
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    chunks: list[Any] = []
    with pytest.raises(TextGenerationError) as raised:
        await client.chat_streamed(seen=chunks.append)
    assert "Broken pipe" in str(raised.value)
    assert chunks[0].choices
