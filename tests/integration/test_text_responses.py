"""The official `openai` client has responses of providers that only chat, and sees OpenAI's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import (
    EasyInputMessageParam,
    FunctionToolParam,
    Response,
    ResponseCustomToolCall,
    ResponseFunctionToolCall,
    ResponseInputParam,
    ResponseReasoningItem,
    ResponseStreamEvent,
)
from pydantic import BaseModel, TypeAdapter

from tests.integration import text_world
from tests.integration.text_world import (
    BACKENDS,
    CLIENTS_OWN,
    NATIVE_RESPONSES,
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
from tests.providers import ToolCall, Turn, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORMATS = ("openai",)
CONVERTED = [name for name, each in BACKENDS.items() if each.provider not in NATIVE_RESPONSES]
gateway, world = text_world.gateway, text_world.world
place = text_world.places("openai", CONVERTED)

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
QUESTION: EasyInputMessageParam = {"role": "user", "content": "What is it like in Zürich?"}
TOOLS: list[FunctionToolParam] = [
    {"type": "function", "name": name, "parameters": parameters, "strict": False}
    for name, parameters in (("get_weather", WEATHER_PARAMETERS), ("get_time", TIME_PARAMETERS))
]
BOTH = [(WEATHER.name, WEATHER.arguments), (TIME.name, TIME.arguments)]
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


def checked(answer: Response) -> Response:
    """`answer`, as strictly as the vendor's model reads it."""
    Response.model_validate(answer.model_dump(mode="json", exclude_unset=True))
    return answer


def called(answer: Response) -> list[tuple[str, Any]]:
    """The calls of an answer: names and parsed arguments."""
    calls = [item for item in answer.output if isinstance(item, ResponseFunctionToolCall)]
    assert all(call.call_id and call.status == "completed" for call in calls)
    assert len({call.call_id for call in calls}) == len(calls)
    return [(call.name, json.loads(call.arguments)) for call in calls]


def items_of(answer: Response) -> list[Any]:
    """The output as a client puts it into its next input, without what its package added."""
    return [
        item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output
    ]


async def events_of(client: AsyncOpenAI, place: Place, **more: Any) -> list[ResponseStreamEvent]:
    """All events of a stream, each checked and numbered as the vendor documents."""
    stream = await client.responses.create(model=place.model, input=[QUESTION], stream=True, **more)
    events = [event async for event in stream]
    for number, event in enumerate(events):
        EVENT.validate_python(event.model_dump(mode="json", exclude_unset=True))
        assert event.sequence_number == number
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    return events


def kinds(events: list[ResponseStreamEvent]) -> list[str]:
    """Their types, each run of the same only once."""
    names = [event.type.removeprefix("response.") for event in events]
    return [name for index, name in enumerate(names) if not index or names[index - 1] != name]


async def test_one_shot(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    raw = await client.responses.with_raw_response.create(
        model=place.model, instructions="Be brief.", input="Where to?", max_output_tokens=99
    )
    answer = checked(raw.parse())
    assert (answer.object, answer.status, answer.model) == ("response", "completed", place.model)
    assert answer.id.startswith("resp_")
    assert answer.created_at > 1_500_000_000
    assert answer.output_text == "Rivers run – to the sea."
    assert (answer.error, answer.incomplete_details, answer.previous_response_id) == (None,) * 3
    assert (answer.instructions, answer.max_output_tokens) == ("Be brief.", 99)
    assert json.loads(raw.text)["store"] is False
    assert answer.usage
    if place.name != "llama2-raw":  # whose server counts only what it wrote
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 8)
    assert answer.usage.input_tokens > 2
    assert raw.headers["x-kong-llm-model"] == place.header
    body = place.upstream.requests[-1].body
    for said in (b"Be brief.", b"Where to?", b"99"):
        assert said in body


async def test_streamed(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="Rivers run – to the sea.", usage=Usage(input=12, output=8))
    events = await events_of(client, place)
    assert kinds(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done"),
        "completed",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "Rivers run – to the sea."
    assert len(deltas) > 1
    begun, end = events[0], events[-1]
    assert begun.type == "response.created"
    assert end.type == "response.completed"
    assert (end.response.id, end.response.model) == (begun.response.id, place.model)
    assert end.response.output_text == "Rivers run – to the sea."
    usage = end.response.usage
    assert usage
    assert usage.output_tokens > 2
    if place.name not in ("llama2-raw", "databricks"):  # where nobody counts
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (12, 8, 20)


@but(CONVERTED, *NO_TOOLS)
async def test_tools_over_two_turns(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(Turn(tool_calls=[WEATHER, TIME]), Turn(text="18 °C at noon."))
    first = await client.responses.create(model=place.model, input=[QUESTION], tools=TOOLS)
    assert called(checked(first)) == BOTH
    history: ResponseInputParam = [QUESTION, *items_of(first)]
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    for number, call in reversed(list(enumerate(calls))):
        result = f"result of {number}"
        history.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
    second = await client.responses.create(model=place.model, input=history, tools=TOOLS)
    assert second.output_text == "18 °C at noon."
    body = place.upstream.requests[-1].body
    assert b"result of 0" in body
    assert b"result of 1" in body


@but(CONVERTED, *NO_TOOLS)
async def test_tools_streamed(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(tool_calls=[WEATHER, TIME])
    events = await events_of(client, place, tools=TOOLS, tool_choice="required")
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [each for _, each in BOTH]
    end = events[-1]
    assert end.type == "response.completed"
    assert called(end.response) == BOTH


@but(CONVERTED, *NO_TOOLS)
async def test_the_stream_helper_takes_it(client: AsyncOpenAI, place: Place) -> None:
    speaks = place.name not in ("cohere", "huggingface")  # of their own, or nothing
    place.upstream.script(text="Let me look." if speaks else None, tool_calls=[TIME])
    async with client.responses.stream(model=place.model, input=[QUESTION], tools=TOOLS) as stream:
        snapshots = [
            event.snapshot async for event in stream if event.type == "response.output_text.delta"
        ]
        answer = await stream.get_final_response()
    assert called(answer) == BOTH[1:]
    assert answer.output_text == (snapshots[-1] if snapshots else "")
    if speaks:
        assert answer.output_text == "Let me look."


ASKED: dict[str, Any] = {
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "tools": [
        {"type": "namespace", "name": "clock", "description": "Time.", "tools": [TOOLS[1]]},
        {
            "type": "custom",
            "name": "patch",
            "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
    ],
}
"""What coding agents send: functions in namespaces, tools that take any text."""
PATCH = '*** Begin "Patch"\n+Zürich\n'


@on("anthropic", "bedrock", "gemini", "cohere", "mistral", "ollama", "huggingface", "vllm")
@pytest.mark.parametrize("streamed", [False, True], ids=["one-shot", "streamed"])
async def test_namespaces_and_custom_tools(
    client: AsyncOpenAI, place: Place, streamed: bool
) -> None:
    """Elsewhere both are functions, and the client sees its own again."""
    calls = [ToolCall("clock__get_time", TIME.arguments), ToolCall("patch", {"input": PATCH})]
    place.upstream.script(Turn(tool_calls=calls), Turn(text="Done."))
    if streamed:
        events = await events_of(client, place, **ASKED)
        inputs = [e.input for e in events if e.type == "response.custom_tool_call_input.done"]
        assert inputs == [PATCH]
        end = events[-1]
        assert end.type == "response.completed"
        first = end.response
    else:
        first = await client.responses.create(model=place.model, input=[QUESTION], **ASKED)
    time, patch = (item for item in checked(first).output if item.type.endswith("_call"))
    assert isinstance(time, ResponseFunctionToolCall)
    assert (time.namespace, time.name, json.loads(time.arguments)) == (
        *("clock", "get_time", TIME.arguments),
    )
    assert isinstance(patch, ResponseCustomToolCall)
    assert (patch.namespace, patch.name, patch.input) == (None, "patch", PATCH)
    history: Any = [
        *(QUESTION, *items_of(first)),
        {"type": "function_call_output", "call_id": time.call_id, "output": "It is noon."},
        {"type": "custom_tool_call_output", "call_id": patch.call_id, "output": "Patched."},
    ]
    second = await client.responses.create(model=place.model, input=history, **ASKED)
    assert second.output_text == "Done."
    for said in (b"clock__get_time", b"It is noon.", b"Patched.", b"Lark grammar"):
        assert said in place.upstream.requests[-1].body


@on("anthropic", "bedrock", "bedrock-claude", "vertex-claude", "gemini", "vertex")
@pytest.mark.parametrize("streamed", [False, True], ids=["one-shot", "streamed"])
async def test_thoughts_come_back_with_their_signatures(
    client: AsyncOpenAI, place: Place, streamed: bool
) -> None:
    """The conversation is all there is: the provider gets its own proof again."""
    place.upstream.script(Turn(thinking="Let me see.", tool_calls=[TIME]), Turn(text="Noon."))
    asked: Any = {
        "model": place.model,
        "tools": TOOLS,
        "store": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    if streamed:
        async with client.responses.stream(input=[QUESTION], **asked) as stream:
            first: Response = await stream.get_final_response()
    else:
        first = await client.responses.create(input=[QUESTION], **asked)
    told = [item for item in first.output if isinstance(item, ResponseReasoningItem)]
    assert [part.text for item in told for part in item.summary] == ["Let me see."]
    (call,) = (item for item in first.output if isinstance(item, ResponseFunctionToolCall))
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}
    history: Any = [QUESTION, *items_of(first), result]
    second = await client.responses.create(input=history, **asked)
    assert second.output_text == "Noon."
    proofs = [(item.encrypted_content or "").partition(":")[2] for item in told]
    assert any(proofs)
    for proof in proofs:
        assert proof.encode() in place.upstream.requests[-1].body


@on("deepseek", "ollama")
async def test_thoughts_without_a_signature_stay_with_their_calls(
    client: AsyncOpenAI, place: Place
) -> None:
    """DeepSeek refuses a call's result where the thought that led to the call is missing."""
    place.upstream.script(Turn(thinking="Let me see.", tool_calls=[TIME]), Turn(text="Noon."))
    first = await client.responses.create(model=place.model, input=[QUESTION], tools=TOOLS)
    (call,) = (item for item in first.output if isinstance(item, ResponseFunctionToolCall))
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}
    await client.responses.create(
        model=place.model, input=[QUESTION, *items_of(first), result], tools=TOOLS
    )
    turn = next(each for each in place.sent["messages"] if each["role"] == "assistant")
    assert "Let me see." in (turn.get("reasoning_content"), turn.get("thinking"))
    assert len(turn["tool_calls"]) == 1


@on(
    *("anthropic", "gemini", "vertex", "bedrock", "bedrock-claude", "cohere"),
    *("ollama", "llama2-ollama", "vllm", "mistral", "huggingface", "dashscope"),
)
async def test_images(client: AsyncOpenAI, place: Place) -> None:
    url = f"data:image/png;base64,{PNG}"
    await client.responses.create(
        model=place.model,
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "detail": "auto", "image_url": url},
                ],
            }
        ],
    )
    assert PNG.encode() in place.upstream.requests[-1].body


@on("anthropic", "gemini", "vertex", "mistral", "cohere", "ollama", "huggingface", "vllm")
async def test_structured_output(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text='{"name":"Bern","people":133000}')
    answer = await client.responses.parse(model=place.model, input=[QUESTION], text_format=City)
    assert answer.output_parsed == City(name="Bern", people=133000)
    assert b'"people"' in place.upstream.requests[-1].body


EFFORT = {
    "anthropic": "claude-sonnet-4-6",
    "bedrock-claude": "eu.anthropic.claude-sonnet-4-6",
    "gemini": "gemini-2.5-flash",
    "vertex": "gemini-2.5-flash",
    "ollama": "gpt-oss",
    "vllm": "Qwen/Qwen3-8B",
}


@on(*EFFORT)
async def test_reasoning_effort(client: AsyncOpenAI, place: Place) -> None:
    """Every provider has its own member for it."""
    await client.responses.create(
        model=EFFORT[place.name],
        input=[QUESTION],
        reasoning={"effort": "high"},
        max_output_tokens=40_000,
    )
    body = place.upstream.requests[-1].body
    words = (b'"effort"', b"budget", b"thinking", b'"think"', b"reasoning_effort")
    assert any(word in body for word in words)


@on("anthropic", "gemini", "bedrock", "deepseek", "huggingface")
@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_what_is_cut_is_incomplete(client: AsyncOpenAI, place: Place, finish: Any) -> None:
    if (place.name, finish) == ("huggingface", "content_filter"):
        pytest.skip("TGI has no such reason")
    place.upstream.script(text="To the", finish=finish)
    answer = checked(await client.responses.create(model=place.model, input=[QUESTION]))
    assert answer.status == "incomplete"
    assert answer.incomplete_details
    reason = "max_output_tokens" if finish == "length" else finish
    assert answer.incomplete_details.reason == reason
    events = await events_of(client, place)
    assert events[-1].type == "response.incomplete"


@on("anthropic", "vllm")
async def test_what_the_answer_repeats_of_the_request(client: AsyncOpenAI, place: Place) -> None:
    answer = await client.responses.create(
        model=place.model,
        input=[QUESTION],
        metadata={"ticket": "7"},
        temperature=0.5,
        tools=TOOLS,
        tool_choice="auto",
        parallel_tool_calls=False,
        user="me",
    )
    checked(answer)
    assert (answer.metadata, answer.temperature, answer.user) == ({"ticket": "7"}, 0.5, "me")
    assert answer.parallel_tool_calls is False
    named = [tool.name for tool in answer.tools if tool.type == "function"]
    assert named == ["get_weather", "get_time"]


# ---- what is refused


_SCREEN = {"display_height": 1, "display_width": 1, "environment": "mac"}
REFUSED: dict[str, dict[str, Any]] = {
    "previous_response_id": {"previous_response_id": "resp_1"},
    "store": {"store": True},
    "background": {"background": True},
    "conversation": {"conversation": "conv_1"},
    "prompt": {"prompt": {"id": "pmpt_1"}},
    "web_search": {"tools": [{"type": "web_search"}]},
    "file_search": {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
    "computer_use_preview": {"tools": [{"type": "computer_use_preview", **_SCREEN}]},
    "code_interpreter": {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    "image_generation": {"tools": [{"type": "image_generation"}]},
    "mcp": {"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://mcp.invalid"}]},
    "item_reference": {"input": [{"type": "item_reference", "id": "msg_1"}]},
}


@on("anthropic", "bedrock", "gemini", "vertex-claude", "cohere", "llama2-raw", "vllm")
@pytest.mark.parametrize("named", REFUSED)
async def test_what_only_openai_does_is_refused_by_name(
    client: AsyncOpenAI, place: Place, named: str
) -> None:
    asked: Any = {"model": place.model, "input": [QUESTION], **REFUSED[named]}
    with pytest.raises(openai.BadRequestError, match=named):
        await client.responses.create(**asked)
    assert place.upstream.requests == []


@on("anthropic", "bedrock", "vllm")
async def test_nothing_is_stored(client: AsyncOpenAI, place: Place) -> None:
    for asked in (
        client.responses.retrieve("resp_1"),
        client.responses.delete("resp_1"),
        client.responses.cancel("resp_1"),
        client.responses.input_items.list("resp_1"),
    ):
        with pytest.raises(openai.NotFoundError, match="keeps no responses"):
            await asked
    with pytest.raises(openai.APIStatusError, match="expected POST") as refused:
        await client.get("/responses", cast_to=object)
    assert refused.value.status_code == 405
    assert refused.value.response.headers["allow"] == "POST"
    assert place.upstream.requests == []


# ---- errors


@pytest.mark.parametrize("streamed", [False, True], ids=["one-shot", "streamed"])
@on("anthropic", "bedrock", "gemini", "cohere", "ollama", "vllm", "huggingface")
async def test_an_error_of_the_provider_is_a_status(
    client: AsyncOpenAI, place: Place, streamed: bool
) -> None:
    place.upstream.script(status=429, message="Not today.", headers={"Retry-After": "7"})
    with pytest.raises(openai.RateLimitError, match="Not today") as raised:
        await client.responses.create(model=place.model, input=[QUESTION], stream=streamed)
    assert raised.value.response.headers["retry-after"] == "7"


STREAM_ERRORS = ("anthropic", "bedrock", "gemini", "vertex-claude", "ollama", "vllm", "huggingface")


@on(*STREAM_ERRORS)
async def test_an_error_before_the_first_word_is_a_status(
    client: AsyncOpenAI, place: Place
) -> None:
    place.upstream.script(text="one two", stream_error="Broken pipe", error_after=0)
    with pytest.raises(openai.APIStatusError, match="Broken pipe"):
        await client.responses.create(model=place.model, input=[QUESTION], stream=True)


@on(*STREAM_ERRORS)
async def test_an_error_after_it_is_a_failed_response(client: AsyncOpenAI, place: Place) -> None:
    place.upstream.script(text="one two three four", stream_error="Broken pipe", error_after=4)
    end = (await events_of(client, place))[-1]
    assert end.type == "response.failed"
    assert end.response.status == "failed"
    assert end.response.error
    assert "Broken pipe" in end.response.error.message


@on("anthropic", "gemini", "cohere", "vllm")
async def test_a_stream_that_breaks_off_is_a_failed_response(
    client: AsyncOpenAI, place: Place
) -> None:
    place.upstream.script(text="one two three four " * 20, cut=1200)
    stream = await client.responses.create(model=place.model, input=[QUESTION], stream=True)
    events: list[ResponseStreamEvent] = []
    with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
        await drain(stream, events)
    assert kinds(events)[-2:] == ["output_text.delta", "failed"]
