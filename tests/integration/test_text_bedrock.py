"""The official AWS client, boto3, talks to Bedrock and to other providers through Kong and sees
Bedrock's answers. It blocks, so it runs in threads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import pytest
from anthropic import AsyncAnthropicBedrock
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from botocore.exceptions import (  # type: ignore[import-untyped, unused-ignore]
    ClientError,
    EventStreamError,
)

from tests.integration import text_world
from tests.integration.text_world import (
    CLIENTS_OWN,
    PNG,
    TIME,
    TIME_PARAMETERS,
    WEATHER,
    WEATHER_PARAMETERS,
    Json,
    Place,
    on,
)
from tests.providers import Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("bedrock",)
OWN = ("bedrock", "bedrock-claude")
OTHERS = (
    *("openai", "azure", "anthropic", "gemini", "vertex", "vertex-claude", "cohere", "mistral"),
    *("huggingface", "ollama"),
)
ALL = (*OWN, *OTHERS)
gateway, world = text_world.gateway, text_world.world
place = text_world.places("bedrock", ALL)

QUESTION = [{"role": "user", "content": [{"text": "What is it like in Zürich?"}]}]
TOOLS = {
    "tools": [
        {"toolSpec": {"name": name, "inputSchema": {"json": parameters}}}
        for name, parameters in (
            ("get_weather", WEATHER_PARAMETERS),
            ("get_time", TIME_PARAMETERS),
        )
    ]
}
BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]


class Client:
    """boto3's client of bedrock-runtime, in a thread."""

    def __init__(self, boto: Any, model: str) -> None:
        self._boto = boto
        self._model = model

    async def converse(self, messages: list[Json] = QUESTION, **more: Any) -> Json:
        answer: Json = await _in_thread(
            lambda: self._boto.converse(modelId=self._model, messages=messages, **more)
        )
        return answer

    async def converse_stream(
        self,
        messages: list[Json] = QUESTION,
        seen: Callable[[Json], None] = lambda _: None,
        **more: Any,
    ) -> list[Json]:
        """The events; each is shown to `seen` when it has come."""

        def read() -> None:
            answer = self._boto.converse_stream(modelId=self._model, messages=messages, **more)
            with contextlib.closing(answer["stream"]) as stream:
                for event in stream:
                    seen(event)
                    events.append(event)

        events: list[Json] = []
        await _in_thread(read)
        return events

    async def invoke(self, body: Json, model: str | None = None) -> Json:
        text = json.dumps(body)
        answer = await _in_thread(
            lambda: self._boto.invoke_model(modelId=model or self._model, body=text)
        )
        parsed: Json = await _in_thread(lambda: json.loads(answer["body"].read()))
        return parsed


async def _in_thread(work: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        return await asyncio.to_thread(work)


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=CLIENTS_OWN,
        aws_secret_access_key=CLIENTS_OWN,
        aws_session_token=CLIENTS_OWN,
        region_name="us-east-1",
    )


@pytest.fixture
def client(session: boto3.Session, place: Place) -> Iterator[Client]:
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=5,
        read_timeout=20,
        parameter_validation=True,
    )
    boto = session.client("bedrock-runtime", endpoint_url=place.url, config=config)
    yield Client(boto, place.model)
    boto.close()


def said(answer: Json) -> str:
    blocks = answer["output"]["message"]["content"]
    return "".join(block.get("text", "") for block in blocks)


def called(answer: Json) -> list[tuple[str, Any]]:
    """The calls of an answer: names and arguments."""
    blocks = answer["output"]["message"]["content"]
    uses = [block["toolUse"] for block in blocks if "toolUse" in block]
    assert all(use["toolUseId"] for use in uses)
    assert len({use["toolUseId"] for use in uses}) == len(uses)
    return [(use["name"], use["input"]) for use in uses]


def gathered(events: list[Json]) -> Json:
    """Events put together to what Converse would have answered."""
    blocks: dict[int, Json] = {}
    for event in events:
        if start := event.get("contentBlockStart"):
            blocks[start["contentBlockIndex"]] = {
                "toolUse": {**start["start"]["toolUse"], "input": ""}
            }
        elif part := event.get("contentBlockDelta"):
            block = blocks.setdefault(part["contentBlockIndex"], {"text": "", "thinking": ""})
            delta = part["delta"]
            if use := delta.get("toolUse"):
                block["toolUse"]["input"] += use["input"]
            elif thought := delta.get("reasoningContent"):
                block["thinking"] += thought.get("text", "")
            else:
                block["text"] += delta["text"]
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    return {"output": {"message": {"content": [blocks[at] for at in sorted(blocks)]}}}


def only(events: list[Json], kind: str) -> Json:
    """The event of this kind, of which there is one."""
    (found,) = [event[kind] for event in events if kind in event]
    return dict(found)


async def test_converse(client: Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    answer = await client.converse(
        system=[{"text": "Be brief."}, {"text": "Be kind."}], inferenceConfig={"maxTokens": 99}
    )
    assert answer["output"]["message"]["role"] == "assistant"
    assert said(answer) == "Rivers run – to the sea."
    assert answer["stopReason"] == "end_turn"
    usage = answer["usage"]
    assert (usage["inputTokens"], usage["outputTokens"], usage["totalTokens"]) == (12, 8, 20)
    assert answer["metrics"]["latencyMs"] >= 0
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-kong-llm-model"] == place.header
    body = place.upstream.requests[-1].body
    assert b"99" in body
    assert body.index(b"Be brief.") < body.index(b"Be kind.")


async def test_converse_stream(client: Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    events = await client.converse_stream()
    assert only(events, "messageStart") == {"role": "assistant"}
    assert said(gathered(events)) == "Rivers run – to the sea."
    assert only(events, "messageStop")["stopReason"] == "end_turn"
    usage = only(events, "metadata")["usage"]
    assert (usage["inputTokens"], usage["outputTokens"], usage["totalTokens"]) == (12, 8, 20)
    assert list(events[-1]) == ["metadata"]


@on("bedrock", "openai", "anthropic", "gemini", "cohere", "ollama")
async def test_words_arrive_as_they_are_said(client: Client, place: Place) -> None:
    hold = place.speak_in_part()
    loop = asyncio.get_running_loop()
    texts: list[str] = []

    def seen(event: Json) -> None:
        if delta := event.get("contentBlockDelta"):
            texts.append(delta["delta"]["text"])
            loop.call_soon_threadsafe(hold.set)

    await client.converse_stream(seen=seen)
    assert texts[0].startswith("one")
    assert "seven" not in texts[0]
    assert "".join(texts) == "one two three four five six seven"


async def test_parallel_calls(client: Client, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    answer = await client.converse(toolConfig=TOOLS)
    assert called(answer) == BOTH
    assert answer["stopReason"] == "tool_use"


async def test_parallel_calls_streamed(client: Client, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    events = await client.converse_stream(toolConfig=TOOLS)
    assert called(gathered(events)) == BOTH
    assert only(events, "messageStop")["stopReason"] == "tool_use"


async def test_results_of_calls_go_back(client: Client, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.converse(toolConfig=TOOLS)
    message = first["output"]["message"]
    results = [
        {
            "toolResult": {
                "toolUseId": block["toolUse"]["toolUseId"],
                "content": [{"text": f"result of {block['toolUse']['name']}"}],
            }
        }
        for block in message["content"]
        if "toolUse" in block
    ]
    second = await client.converse(
        [*QUESTION, message, {"role": "user", "content": [*reversed(results), {"text": "So?"}]}],
        toolConfig=TOOLS,
    )
    assert said(second) == "18 °C at noon."
    for part in (b"result of get_weather", b"result of get_time", b"So?"):
        assert part in place.upstream.requests[-1].body


async def test_a_tool_can_be_demanded(client: Client, place: Place) -> None:
    place.upstream.script(tool_calls=[TIME])
    choice = {"tool": {"name": "get_time"}}
    answer = await client.converse(toolConfig={**TOOLS, "toolChoice": choice})
    assert called(answer) == BOTH[1:]


@pytest.mark.parametrize("name", ["length", "stop"])
async def test_why_it_stopped(client: Client, place: Place, name: str) -> None:
    place.upstream.script(text="To the", finish=name)
    answer = await client.converse()
    assert answer["stopReason"] == {"length": "max_tokens", "stop": "end_turn"}[name]


@on(*OWN, "openai", "anthropic", "gemini", "ollama")
async def test_images(client: Client, place: Place) -> None:
    image = {"format": "png", "source": {"bytes": base64.b64decode(PNG)}}
    await client.converse(
        [{"role": "user", "content": [{"image": image}, {"text": "What is this?"}]}]
    )
    assert PNG.encode() in place.upstream.requests[-1].body


@on(*OWN, "anthropic", "cohere", "vertex-claude")
async def test_reasoning(client: Client, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    answer = await client.converse(inferenceConfig={"maxTokens": 4000})
    block = answer["output"]["message"]["content"][0]
    assert block["reasoningContent"]["reasoningText"]["text"] == "Let me see."
    assert said(answer) == "Rain."


@on(*OWN, "anthropic", "cohere", "vertex-claude")
async def test_reasoning_streamed(client: Client, place: Place) -> None:
    place.upstream.script(thinking="Let me see.", text="Rain.")
    answer = gathered(await client.converse_stream(inferenceConfig={"maxTokens": 4000}))
    thought, text = answer["output"]["message"]["content"]
    assert (thought["thinking"], text["text"]) == ("Let me see.", "Rain.")


@on("openai", "anthropic", "gemini", "cohere", "mistral", "huggingface", "ollama")
async def test_settings_have_the_providers_names(client: Client, place: Place) -> None:
    await client.converse(
        inferenceConfig={"maxTokens": 123, "temperature": 0.5, "stopSequences": ["END"]}
    )
    body = place.upstream.requests[-1].body
    assert b"123" in body
    assert b"END" in body
    assert b"0.5" in body


@on(*OWN)
async def test_what_only_bedrock_has_goes_through(client: Client, place: Place) -> None:
    await client.converse(
        guardrailConfig={"guardrailIdentifier": "g1", "guardrailVersion": "1"},
        requestMetadata={"team": "a"},
    )
    assert place.sent["guardrailConfig"] == {"guardrailIdentifier": "g1", "guardrailVersion": "1"}
    assert place.sent["requestMetadata"] == {"team": "a"}


# ---- InvokeModel

CLAUDE_BODY: Json = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "What is it like in Zürich?"}],
}


@on("bedrock-claude", "anthropic", "vertex-claude", "openai", "gemini")
async def test_invoking_claude(client: Client, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.")
    answer = await client.invoke(CLAUDE_BODY)
    assert answer["type"] == "message"
    assert [block["text"] for block in answer["content"]] == ["Rivers run – to the sea."]
    assert answer["stop_reason"] == "end_turn"


@on("bedrock", "openai", "azure", "cohere", "gemini", "mistral", "ollama")
async def test_invoking_titan_for_an_embedding(client: Client, place: Place) -> None:
    answer = await client.invoke({"inputText": "a river"}, place.backend.embeds)
    assert len(answer["embedding"]) == 8
    assert answer["inputTextTokenCount"] >= 0


@on("bedrock-claude", "anthropic", "vertex-claude", "openai", "gemini")
async def test_anthropics_client_of_bedrock(place: Place) -> None:
    """It signs InvokeModel itself, with the client's own keys."""
    place.upstream.script(text="Rivers run to the sea.")
    async with AsyncAnthropicBedrock(
        aws_access_key=CLIENTS_OWN,
        aws_secret_key=CLIENTS_OWN,
        aws_region="us-east-1",
        base_url=place.url,
        max_retries=0,
        timeout=20,
    ) as client:
        message = await client.messages.create(
            model=place.model, max_tokens=100, messages=[{"role": "user", "content": "Rivers?"}]
        )
        async with client.messages.stream(
            model=place.model, max_tokens=100, messages=[{"role": "user", "content": "Rivers?"}]
        ) as stream:
            texts = [text async for text in stream.text_stream]
    assert message.content[0].type == "text"
    assert message.content[0].text == "".join(texts) == "Rivers run to the sea."


# ---- errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "ValidationException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
    ],
)
@on(*OWN, "openai", "anthropic", "gemini", "cohere", "ollama")
async def test_an_error_of_the_provider_is_the_clients_exception(
    client: Client, place: Place, status: int, kind: str
) -> None:
    place.upstream.script(status=status, message="Not today.")
    with pytest.raises(ClientError, match="Not today") as raised:
        await client.converse()
    assert raised.value.response["Error"]["Code"] == kind
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@on(*OWN, "openai", "anthropic", "gemini", "cohere", "ollama")
async def test_an_error_of_the_provider_instead_of_a_stream(client: Client, place: Place) -> None:
    place.upstream.script(status=429, message="Not today.")
    with pytest.raises(ClientError, match="Not today") as raised:
        await client.converse_stream()
    assert raised.value.response["Error"]["Code"] == "ThrottlingException"


@on(*OWN, "openai", "anthropic", "gemini", "cohere", "huggingface", "ollama")
async def test_an_error_inside_a_stream_is_raised(client: Client, place: Place) -> None:
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    events: list[Json] = []
    with pytest.raises(EventStreamError, match="Broken pipe"):
        await client.converse_stream(seen=events.append)
    assert said(gathered(events)).startswith("one")
    assert "messageStop" not in {kind for event in events for kind in event}


@on("anthropic", "cohere", "ollama")
async def test_what_cannot_be_carried_over_is_the_clients_mistake(
    client: Client, place: Place
) -> None:
    video = {"format": "mp4", "source": {"bytes": b"mp4"}}
    with pytest.raises(ClientError) as raised:
        await client.converse([{"role": "user", "content": [{"video": video}]}])
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    assert "messages[0].content[0]" in raised.value.response["Error"]["Message"]
    assert place.upstream.requests == []
