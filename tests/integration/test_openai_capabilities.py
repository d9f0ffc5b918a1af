"""The official `openai` client uses all of OpenAI's capabilities through Kong: carried by Kong
alone, and carried by the relay."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass

import openai
import pytest
from openai import AsyncOpenAI

from kong_ai_proxy.gateway.provider import Provider
from tests.decks import KEY, capabilities_deck
from tests.gateways import GatewayFactory, RunningGateway

MB = 1024 * 1024
CLIENTS_OWN = "sk-the-clients-own"
CHAT_LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]},
}


@dataclass
class World:
    """A client, the gateway and the provider behind it."""

    client: AsyncOpenAI
    running: RunningGateway
    provider: Provider


@pytest.fixture(params=["kong", "relay"])
def way(request: pytest.FixtureRequest) -> str:
    """Who carries the requests."""
    return str(request.param)


@pytest.fixture
async def world(gateway: GatewayFactory, way: str) -> AsyncIterator[World]:
    """All capabilities; afterwards it is checked who carried and what the provider saw."""
    provider = await Provider.start(api_key=KEY)
    logging = {"log_statistics": True, "log_payloads": True} if way == "relay" else {}
    base = provider.url.removesuffix("/v1")
    running = await gateway(capabilities_deck(base, logging=logging))
    async with AsyncOpenAI(
        base_url=f"{running.url}/v1",
        api_key=CLIENTS_OWN,
        max_retries=0,
        timeout=30,
        default_headers={"cookie": "session=1", "x-api-key": CLIENTS_OWN},
    ) as client:
        yield World(client, running, provider)
    await provider.stop()
    assert ("carrying " in running.log()) == (way == "relay")
    for seen in provider.seen:
        assert CLIENTS_OWN not in f"{seen.path} {dict(seen.headers)}"
        assert not [n for n in seen.headers if n.lower().startswith("x-kong-ai-proxy")]
        assert "cookie" not in seen.headers


@pytest.fixture
def client(world: World) -> AsyncOpenAI:
    return world.client


def sound(seconds: float = 1.0) -> bytes:
    """A WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(bytes(2 * int(16_000 * seconds)))
    return file.getvalue()


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Say something about rivers."}]
    )
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens > 0


async def test_chat_streamed_tells_usage_only_when_asked(client: AsyncOpenAI) -> None:
    for asked in (True, False):
        stream = await client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "Say something about rivers."}],
            stream=True,
            stream_options={"include_usage": True} if asked else openai.omit,
        )
        chunks = [chunk async for chunk in stream]
        assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 5
        assert chunks[-1 - asked].choices[0].finish_reason == "stop"
        assert [chunk for chunk in chunks if chunk.usage] == chunks[-1:] * asked


async def test_function_calling_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "parameters": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}},
                        "required": ["city"],
                    },
                },
            }
        ],
        stream=True,
    )
    arguments = ""
    async for chunk in stream:
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            assert call.function
            arguments += call.function.arguments or ""
    assert "city" in json.loads(arguments)


async def test_completions(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon")
    assert answer.choices[0].text


async def test_completions_streamed(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt="Once upon", stream=True
    )
    assert "".join([c.choices[0].text async for c in stream if c.choices])


async def test_embeddings(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [len(item.embedding) for item in answer.data] == [1536, 1536]


async def test_files_of_25_megabytes_go_up_and_come_down(client: AsyncOpenAI) -> None:
    line = json.dumps(CHAT_LINE).encode() + b"\n"
    content = line * (25 * MB // len(line))
    made = await client.files.create(file=("in.jsonl", content), purpose="batch")
    assert made.bytes == len(content)
    assert (await client.files.retrieve(made.id)).filename == "in.jsonl"
    assert made.id in [file.id async for file in client.files.list()]
    down = await client.files.content(made.id)
    assert hashlib.sha256(down.content).digest() == hashlib.sha256(content).digest()
    assert (await client.files.delete(made.id)).deleted


async def test_batches(client: AsyncOpenAI) -> None:
    line = json.dumps(CHAT_LINE).encode()
    file = await client.files.create(file=("in.jsonl", line), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    for _ in range(10):
        batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.output_file_id
    output = await client.files.content(batch.output_file_id)
    assert json.loads(output.text)["custom_id"] == "1"
    other = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert (await client.batches.cancel(other.id)).status in ("cancelling", "cancelled")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of Assistants
async def test_assistants(client: AsyncOpenAI) -> None:
    assistant = await client.beta.assistants.create(model="gpt-4o", name="helper")
    assert (await client.beta.assistants.retrieve(assistant.id)).name == "helper"
    thread = await client.beta.threads.create()
    await client.beta.threads.messages.create(thread.id, role="user", content="hello")
    run = await client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, poll_interval_ms=1
    )
    assert run.status == "completed"
    messages = await client.beta.threads.messages.list(thread.id)
    assert {message.role for message in messages.data} == {"user", "assistant"}
    async with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant.id
    ) as stream:
        assert "".join([text async for text in stream.text_deltas])
    assert (await client.beta.assistants.delete(assistant.id)).deleted


async def test_responses(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model="gpt-4o", input="Say something about rivers.")
    assert answer.output_text
    assert (await client.responses.retrieve(answer.id)).output_text == answer.output_text
    items = await client.responses.input_items.list(answer.id)
    assert items.data
    await client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)


async def test_responses_streamed(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="gpt-4o", input="Rivers?", stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"


async def test_speech(client: AsyncOpenAI) -> None:
    answer = await client.audio.speech.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello", response_format="wav"
    )
    assert answer.content.startswith(b"RIFF")


async def test_speech_streamed(client: AsyncOpenAI) -> None:
    answer = await client.audio.speech.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello", stream_format="sse"
    )
    events = [json.loads(line[5:]) for line in answer.content.splitlines() if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["total_tokens"] > 0


async def test_transcriptions_of_25_megabytes(client: AsyncOpenAI) -> None:
    recording = sound(25 * MB / 32_000 - 1)
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=("talk.wav", recording), response_format="verbose_json"
    )
    assert answer.duration == pytest.approx(25 * MB / 32_000 - 1, abs=0.5)


async def test_transcriptions_streamed(client: AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(
        model="gpt-4o-mini-transcribe", file=("talk.wav", sound()), stream=True
    )
    kinds = [event.type async for event in stream]
    assert kinds[-1] == "transcript.text.done"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of translations
async def test_translations(client: AsyncOpenAI) -> None:
    answer = await client.audio.translations.create(model="whisper-1", file=("a.wav", sound()))
    assert answer.text


async def test_image_generations(client: AsyncOpenAI) -> None:
    answer = await client.images.generate(model="gpt-image-1", prompt="a river", size="1024x1024")
    assert answer.data
    assert answer.data[0].b64_json
    assert answer.usage
    assert answer.usage.output_tokens > 0


async def test_image_edits(client: AsyncOpenAI) -> None:
    made = await client.images.generate(
        model="dall-e-2", prompt="a river", size="256x256", response_format="b64_json"
    )
    assert made.data
    picture = base64.b64decode(made.data[0].b64_json or "")
    assert picture.startswith(b"\x89PNG")
    answer = await client.images.edit(
        model="gpt-image-1", image=("river.png", picture, "image/png"), prompt="a bridge"
    )
    assert answer.data
    assert answer.data[0].b64_json


async def test_images_streamed(client: AsyncOpenAI) -> None:
    made = await client.images.generate(
        model="gpt-image-2", prompt="a river", size="1024x1024", stream=True, partial_images=2
    )
    pictures = [(event.type, base64.b64decode(event.b64_json)) async for event in made]
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert [kind for kind, _ in pictures] == [partial, partial, completed]
    assert all(picture.startswith(b"\x89PNG") for _, picture in pictures)
    edited = await client.images.edit(
        model="gpt-image-2",
        image=("river.png", pictures[-1][1], "image/png"),
        prompt="a bridge",
        stream=True,
        partial_images=1,
    )
    kinds = [event.type async for event in edited]
    assert kinds == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of videos
async def test_videos(client: AsyncOpenAI) -> None:
    video = await client.videos.create(model="sora-2", prompt="a river", seconds="4")
    for _ in range(10):
        video = await client.videos.retrieve(video.id)
    assert video.status == "completed"
    content = await client.videos.download_content(video.id)
    assert content.content[4:8] == b"ftyp"
    assert (await client.videos.delete(video.id)).deleted


async def test_realtime(client: AsyncOpenAI) -> None:
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            }
        )
        await connection.response.create()
        kinds = []
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                assert event.response.usage
                break
    assert kinds[0] == "session.created"
