"""Assistants, threads and runs of the stand-in provider, through OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import beta
from openai.types.beta import threads as thread_types

from kong_ai_proxy.gateway.provider import Provider, assistants, runs, threads
from tests.unit.gateway.provider_client import client, plain, tool

# OpenAI's client calls these operations deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

_BETA = {"OpenAI-Beta": "assistants=v2"}
_WEATHER = tool(
    "get_weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_QUESTION: Any = {"role": "user", "content": "What is the weather in Paris?"}


def test_they_know_every_parameter_of_the_official_client() -> None:
    def names(params: Any) -> set[str]:
        return set(params.__annotations__)

    stream = {"stream"}
    created = beta.assistant_create_params.AssistantCreateParams
    assert names(created) == assistants.RULES.keys()
    assert names(beta.thread_create_params.ThreadCreateParams) == threads.RULES.keys()
    assert names(beta.thread_update_params.ThreadUpdateParams) == threads.UPDATE_RULES.keys()
    message = thread_types.message_create_params.MessageCreateParams
    assert names(message) == threads.MESSAGE_RULES.keys()
    run = thread_types.run_create_params.RunCreateParamsBase
    assert names(run) - {"include"} | stream == runs.RULES.keys()  # include is in the query
    both = beta.thread_create_and_run_params.ThreadCreateAndRunParamsBase
    assert names(both) | stream == runs.THREAD_AND_RUN_RULES.keys()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/assistants"),
        ("GET", "/v1/assistants/x"),
        ("POST", "/v1/threads"),
        ("GET", "/v1/threads/x/messages"),
        ("POST", "/v1/threads/x/runs"),
        ("GET", "/v1/threads/x/runs/y/steps"),
    ],
)
@pytest.mark.parametrize("value", [None, "assistants=v1", "realtime=v1"])
async def test_the_beta_header_is_needed(method: str, path: str, value: str | None) -> None:
    headers = {"OpenAI-Beta": value} if value else {}
    async with plain() as http:
        answer = await http.request(method, path, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_beta"
    assert "'OpenAI-Beta: assistants=v2'" in answer.json()["error"]["message"]


# -- assistants ------------------------------------------------------------------------------------


async def test_an_assistant_is_made_found_changed_and_deleted() -> None:
    async with client() as official:
        all_of_them = official.beta.assistants
        made = await all_of_them.create(
            model="m",
            name="Helper",
            instructions="Help",
            tools=[_WEATHER, {"type": "file_search"}],
            tool_resources={"file_search": {"vector_store_ids": ["vs_1"]}},
        )
        found = await all_of_them.retrieve(made.id)
        changed = await all_of_them.update(made.id, name="Other", instructions=None)
        gone = await all_of_them.delete(made.id)
        with pytest.raises(openai.NotFoundError, match=made.id):
            await all_of_them.retrieve(made.id)
    assert found == made
    assert made.id.startswith("asst_")
    assert (made.model, made.name, len(made.tools)) == ("m", "Helper", 2)
    assert (changed.name, changed.instructions, changed.model) == ("Other", None, "m")
    assert gone.deleted


async def test_assistants_are_listed() -> None:
    async with client() as official:
        made = [(await official.beta.assistants.create(model="m")).id for _ in range(3)]
        newest = [assistant.id async for assistant in official.beta.assistants.list(limit=2)]
        before = await official.beta.assistants.list(before=made[0])
    assert newest == made[::-1]
    assert [assistant.id for assistant in before.data] == [made[2], made[1]]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": 5}, "model"),
        ({"name": "x" * 257}, "name"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "hammer"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "file_search"}] * 129}, "tools"),
        ({"response_format": "xml"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"file_ids": []}, None),
    ],
)
async def test_wrong_assistants(change: dict[str, Any], param: str | None) -> None:
    async with plain() as http:
        answer = await http.post("/v1/assistants", json={"model": "m", **change}, headers=_BETA)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


# -- threads and messages --------------------------------------------------------------------------


async def test_a_thread_is_made_found_changed_and_deleted() -> None:
    async with client() as official:
        made = await official.beta.threads.create(messages=[_QUESTION], metadata={"a": "b"})
        found = await official.beta.threads.retrieve(made.id)
        changed = await official.beta.threads.update(made.id, metadata={"c": "d"})
        gone = await official.beta.threads.delete(made.id)
        with pytest.raises(openai.NotFoundError, match=made.id):
            await official.beta.threads.messages.list(made.id)
    assert found == made
    assert made.id.startswith("thread_")
    assert changed.metadata == {"c": "d"}
    assert gone.deleted


async def test_a_thread_needs_no_body() -> None:
    async with plain() as http:
        answer = await http.post("/v1/threads", headers=_BETA)
    assert answer.json()["object"] == "thread"


async def test_messages_are_made_found_changed_and_deleted() -> None:
    parts: Any = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
        {"type": "image_file", "image_file": {"file_id": "file-x"}},
    ]
    async with client() as official:
        thread = (await official.beta.threads.create(messages=[_QUESTION])).id
        messages = official.beta.threads.messages
        made = await messages.create(thread, role="user", content=parts)
        changed = await messages.update(made.id, thread_id=thread, metadata={"a": "b"})
        found = await messages.retrieve(made.id, thread_id=thread)
        listed = [message.id async for message in messages.list(thread, limit=1)]
        gone = await messages.delete(made.id, thread_id=thread)
        left = await messages.list(thread)
    assert found == changed
    assert changed.metadata == {"a": "b"}
    assert [part.type for part in made.content] == ["text", "image_url", "image_file"]
    assert listed[0] == made.id
    assert len(listed) == 2
    assert gone.deleted
    assert len(left.data) == 1


async def test_a_message_of_another_thread_is_not_found() -> None:
    async with client() as official:
        first, second = [await official.beta.threads.create() for _ in range(2)]
        messages = official.beta.threads.messages
        made = await messages.create(first.id, role="user", content="x")
        with pytest.raises(openai.NotFoundError):
            await messages.retrieve(made.id, thread_id=second.id)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "content"),
        ({"role": "system", "content": "x"}, "role"),
        ({"role": "user", "content": 5}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "user", "content": [{"type": "audio"}]}, "content[0].type"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0].image_url"),
        ({"role": "user", "content": "x", "attachments": ["a"]}, "attachments[0]"),
    ],
)
async def test_wrong_messages(message: dict[str, Any], param: str) -> None:
    async with plain() as http:
        thread = (await http.post("/v1/threads", headers=_BETA)).json()["id"]
        answer = await http.post(f"/v1/threads/{thread}/messages", json=message, headers=_BETA)
        first = await http.post("/v1/threads", json={"messages": [message]}, headers=_BETA)
    assert (answer.status_code, first.status_code) == (400, 400)
    assert answer.json()["error"]["param"] == param
    assert first.json()["error"]["param"] == f"messages[0].{param}"


# -- runs ------------------------------------------------------------------------------------------


async def _ready(official: AsyncOpenAI, **more: Any) -> tuple[str, str]:
    """A thread with a question, and an assistant."""
    thread = await official.beta.threads.create(messages=[_QUESTION])
    assistant = await official.beta.assistants.create(model="m", instructions="Help", **more)
    return thread.id, assistant.id


async def test_a_run_moves_on_with_each_poll_and_answers() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        every = official.beta.threads.runs
        run = await every.create(thread, assistant_id=assistant, metadata={"a": "b"})
        polled = [await every.retrieve(run.id, thread_id=thread) for _ in range(3)]
        messages = (await official.beta.threads.messages.list(thread, run_id=run.id)).data
        steps = (await every.steps.list(run.id, thread_id=thread)).data
        step = await every.steps.retrieve(steps[0].id, thread_id=thread, run_id=run.id)
    assert [run.status, *(r.status for r in polled)] == [
        "queued",
        "in_progress",
        "completed",
        "completed",
    ]
    assert run.id.startswith("run_")
    assert polled[1].usage is not None
    assert polled[1].usage.completion_tokens > 0
    content: Any = messages[0].content[0]
    assert "What is the weather in Paris?" in content.text.value
    assert messages[0].assistant_id == assistant
    assert step.step_details.type == "message_creation"
    assert step.step_details.message_creation.message_id == messages[0].id


async def test_the_clients_own_poll_loop_works() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        run = await official.beta.threads.runs.create_and_poll(
            thread_id=thread, assistant_id=assistant
        )
    assert run.status == "completed"


async def test_a_run_asks_for_a_tool_and_answers_with_its_result() -> None:
    async with client() as official:
        thread, assistant = await _ready(official, tools=[_WEATHER])
        every = official.beta.threads.runs
        run = await every.create_and_poll(thread_id=thread, assistant_id=assistant)
        assert run.status == "requires_action"
        assert run.required_action is not None
        call = run.required_action.submit_tool_outputs.tool_calls[0]
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        done = await every.submit_tool_outputs_and_poll(
            run_id=run.id,
            thread_id=thread,
            tool_outputs=[{"tool_call_id": call.id, "output": "sunny"}],
        )
        messages = await official.beta.threads.messages.list(thread)
        steps = [step async for step in every.steps.list(run.id, thread_id=thread, order="asc")]
    assert done.status == "completed"
    content: Any = messages.data[0].content[0]
    assert "sunny" in content.text.value
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    details: Any = steps[0].step_details
    assert details.tool_calls[0].function.output == "sunny"


async def test_a_streamed_run_has_every_event_in_order() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        stream = await official.beta.threads.runs.create(
            thread, assistant_id=assistant, stream=True
        )
        events = [event async for event in stream]
    assert list(dict.fromkeys(event.event for event in events)) == [
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.completed",
    ]
    deltas: list[Any] = [e.data for e in events if e.event == "thread.message.delta"]
    said = "".join(data.delta.content[0].text.value for data in deltas)
    whole: Any = next(e.data for e in events if e.event == "thread.message.completed")
    assert whole.content[0].text.value == said


async def test_the_clients_stream_helper_follows_a_tool_call() -> None:
    async with client() as official:
        thread, assistant = await _ready(official, tools=[_WEATHER])
        every = official.beta.threads.runs
        async with every.stream(thread_id=thread, assistant_id=assistant) as stream:
            await stream.until_done()
            run: Any = stream.current_run
        call = run.required_action.submit_tool_outputs.tool_calls[0]
        async with every.submit_tool_outputs_stream(
            run_id=run.id,
            thread_id=thread,
            tool_outputs=[{"tool_call_id": call.id, "output": "sunny"}],
        ) as stream:
            messages: list[Any] = await stream.get_final_messages()
    assert run.status == "requires_action"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert "sunny" in messages[0].content[0].text.value


async def test_a_thread_and_its_run_are_made_at_once() -> None:
    async with client() as official:
        _, assistant = await _ready(official)
        run = await official.beta.threads.create_and_run(
            assistant_id=assistant, thread={"messages": [_QUESTION]}
        )
        stream = await official.beta.threads.create_and_run(assistant_id=assistant, stream=True)
        events = [event.event async for event in stream]
    assert run.status == "queued"
    assert events[:2] == ["thread.created", "thread.run.created"]


async def test_a_run_may_say_otherwise_than_its_assistant() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        run = await official.beta.threads.runs.create(
            thread,
            assistant_id=assistant,
            model="other",
            additional_instructions="Be brief",
            additional_messages=[{"role": "user", "content": "And in Oslo?"}],
        )
        messages = await official.beta.threads.messages.list(thread)
    assert (run.model, run.instructions) == ("other", "Help\nBe brief")
    assert len(messages.data) == 2


async def test_a_thread_is_locked_while_a_run_is_at_work() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        every = official.beta.threads.runs
        run = await every.create(thread, assistant_id=assistant)
        with pytest.raises(openai.BadRequestError, match="while a run"):
            await official.beta.threads.messages.create(thread, role="user", content="x")
        with pytest.raises(openai.BadRequestError, match="already has an active run"):
            await every.create(thread, assistant_id=assistant)
        cancelling = await every.cancel(run.id, thread_id=thread)
        cancelled = await every.retrieve(run.id, thread_id=thread)
        assert await official.beta.threads.messages.create(thread, role="user", content="x")
        with pytest.raises(openai.BadRequestError, match="status 'cancelled'"):
            await every.cancel(run.id, thread_id=thread)
    assert (cancelling.status, cancelled.status) == ("cancelling", "cancelled")


async def test_a_streamed_run_can_be_cancelled() -> None:
    provider = await Provider.start(word_seconds=0.02)
    try:
        async with AsyncOpenAI(base_url=provider.url, api_key="k") as official:
            thread, assistant = await _ready(official)
            every = official.beta.threads.runs
            events = []
            async for event in await every.create(thread, assistant_id=assistant, stream=True):
                events.append(event)
                if event.event == "thread.message.in_progress":
                    run: Any = events[0].data
                    polled = await every.retrieve(run.id, thread_id=thread)
                    await every.cancel(run.id, thread_id=thread)
    finally:
        await provider.stop()
    assert polled.status == "in_progress"
    assert [event.event for event in events][-3:] == [
        "thread.message.incomplete",
        "thread.run.step.cancelled",
        "thread.run.cancelled",
    ]


async def test_runs_are_listed_and_changed() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        every = official.beta.threads.runs
        made = []
        for _ in range(2):
            run = await every.create_and_poll(thread_id=thread, assistant_id=assistant)
            made.append(run.id)
        changed = await every.update(made[0], thread_id=thread, metadata={"a": "b"})
        listed = [run.id async for run in every.list(thread)]
    assert listed == made[::-1]
    assert changed.metadata == {"a": "b"}


async def test_a_limit_cuts_the_answer() -> None:
    long = {"role": "user", "content": "a " * 300}
    async with client() as official:
        thread = await official.beta.threads.create(messages=[long])  # type: ignore[list-item]
        assistant = await official.beta.assistants.create(
            model="m",
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "schema": {"type": "array", "minItems": 100, "items": {"const": "a b c d"}},
                },
            },
        )
        run = await official.beta.threads.runs.create_and_poll(
            thread_id=thread.id, assistant_id=assistant.id, max_completion_tokens=256
        )
    assert run.status == "incomplete"
    assert run.incomplete_details is not None
    assert run.incomplete_details.reason == "max_completion_tokens"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"assistant_id": "asst_x"}, 404),
        ({"assistant_id": None}, 400),
        ({"max_completion_tokens": 10}, 400),
        ({"tool_choice": "maybe"}, 400),
        ({"tool_choice": {"type": "function"}}, 400),
        ({"additional_messages": [{"role": "user"}]}, 400),
        ({"tools": [{"type": "x"}]}, 400),
    ],
)
async def test_wrong_runs(change: dict[str, Any], status: int) -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        with pytest.raises(openai.APIStatusError) as raised:
            await official.post(
                f"/threads/{thread}/runs",
                body={"assistant_id": assistant, **change},
                cast_to=object,
                options={"headers": _BETA},
            )
    assert raised.value.status_code == status


@pytest.mark.parametrize("outputs", [[], [{"tool_call_id": "call_x", "output": "x"}]])
async def test_wrong_tool_outputs(outputs: list[Any]) -> None:
    async with client() as official:
        thread, assistant = await _ready(official, tools=[_WEATHER])
        every = official.beta.threads.runs
        run = await every.create_and_poll(thread_id=thread, assistant_id=assistant)
        with pytest.raises(openai.BadRequestError, match="call_ids"):
            await every.submit_tool_outputs(run.id, thread_id=thread, tool_outputs=outputs)


async def test_a_run_that_waits_for_nothing_takes_no_outputs() -> None:
    async with client() as official:
        thread, assistant = await _ready(official)
        every = official.beta.threads.runs
        run = await every.create(thread, assistant_id=assistant)
        with pytest.raises(openai.BadRequestError, match="'queued'"):
            await every.submit_tool_outputs(run.id, thread_id=thread, tool_outputs=[])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/assistants/x",
        "/v1/assistants/..%2Fx",
        "/v1/threads/x",
        "/v1/threads/%2e%2e/messages/x",
        "/v1/threads/x/runs/y",
    ],
)
async def test_unknown_ids_are_not_found(path: str) -> None:
    async with plain() as http:
        assert (await http.get(path, headers=_BETA)).status_code == 404
