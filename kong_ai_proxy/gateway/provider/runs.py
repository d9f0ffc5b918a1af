"""The stand-in provider's runs: an assistant at work on a thread, poll by poll or streamed.

A run is `queued`, `in_progress` at its first GET and at its end at the second. The end is an
answer in the thread, or `requires_action` where a tool is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import orjson
from aiohttp import web

from kong_ai_proxy.gateway.provider import chat
from kong_ai_proxy.gateway.provider.assistants import (
    ASSISTANTS,
    Assistant,
    beta,
    check_format,
    check_tools,
)
from kong_ai_proxy.gateway.provider.http import (
    POLL_SOON,
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    each,
    json_response,
    member,
    new_id,
    now,
    read_json,
    send_named_events,
    wrong_value,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf, page
from kong_ai_proxy.gateway.provider.threads import (
    MESSAGES,
    Thread,
    add_message,
    check_message,
    make_thread,
    messages_of,
    thread_of,
)

_STRING: Final = Rule("a string")
_OBJECT: Final = Rule("an object")
_ARRAY: Final = Rule("an array")
_SHARED: Final[dict[str, Rule]] = {
    "assistant_id": _STRING,
    "instructions": _STRING,
    "max_completion_tokens": Rule("an integer", 256),
    "max_prompt_tokens": Rule("an integer", 256),
    "metadata": _OBJECT,
    "model": _STRING,
    "parallel_tool_calls": Rule("a boolean"),
    "response_format": Rule("a string or an object"),
    "stream": Rule("a boolean"),
    "temperature": Rule("a decimal", 0, 2),
    "tool_choice": Rule("a string or an object"),
    "tools": _ARRAY,
    "top_p": Rule("a decimal", 0, 1),
    "truncation_strategy": _OBJECT,
}
RULES: Final[dict[str, Rule]] = {
    **_SHARED,
    "additional_instructions": _STRING,
    "additional_messages": _ARRAY,
    "reasoning_effort": _STRING,
}
THREAD_AND_RUN_RULES: Final[dict[str, Rule]] = {
    **_SHARED,
    "thread": _OBJECT,
    "tool_resources": _OBJECT,
}
_OUTPUT_RULES: Final[dict[str, Rule]] = {"stream": Rule("a boolean"), "tool_outputs": _ARRAY}
_METADATA_RULES: Final[dict[str, Rule]] = {"metadata": _OBJECT}
_OVER: Final = ("cancelled", "failed", "completed", "incomplete", "expired")
_DONE: Final = b"event: done\ndata: [DONE]\n\n"
_TEN_MINUTES: Final = 600
_MOST_STEPS: Final = 128

Event = tuple[str, Json]


@dataclass
class Step:
    """A step of a run: a message it writes, or a tool it asks for."""

    run: Run
    details: Json
    id: str = field(default_factory=lambda: new_id("step_"))
    created_at: int = field(default_factory=now)
    status: str = "in_progress"
    usage: Json | None = None

    def shown(self) -> Json:
        return {
            "id": self.id,
            "object": "thread.run.step",
            "created_at": self.created_at,
            "assistant_id": self.run.assistant_id,
            "thread_id": self.run.thread.id,
            "run_id": self.run.id,
            "type": self.details["type"],
            "status": self.status,
            "step_details": self.details,
            "completed_at": self.created_at if self.status == "completed" else None,
            "cancelled_at": self.created_at if self.status == "cancelled" else None,
            "expired_at": None,
            "failed_at": None,
            "last_error": None,
            "metadata": {},
            "usage": self.usage,
        }


@dataclass
class Run:
    """An assistant at work on a thread. `asked` is the chat request that it comes to."""

    thread: Thread
    assistant_id: str
    options: Json
    asked: Json
    metadata: Json
    id: str = field(default_factory=lambda: new_id("run_"))
    created_at: int = field(default_factory=now)
    status: str = "queued"
    times: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    usage: Json = field(default_factory=lambda: _usage(0, 0))
    streaming: bool = False  # then the stream moves it on, not the polls

    def become(self, status: str) -> None:
        """Take another status, now. The thread is free again at the end."""
        self.status = status
        self.times[status] = now()
        if status in _OVER:
            self.thread.run_id = None

    @property
    def calls(self) -> list[Json]:
        """The tool calls it waits for."""
        if self.status != "requires_action":
            return []
        calls: list[Json] = self.steps[-1].details["tool_calls"]
        return calls

    def shown(self) -> Json:
        return {
            "id": self.id,
            "object": "thread.run",
            "created_at": self.created_at,
            "thread_id": self.thread.id,
            "assistant_id": self.assistant_id,
            "status": self.status,
            **self._times(),
            **self._actions(),
            **self.options,
            "metadata": self.metadata,
            "usage": self.usage if self.status in _OVER else None,
        }

    def _times(self) -> Json:
        at = self.times.get
        running = self.status not in _OVER
        return {
            "started_at": at("in_progress"),
            "expires_at": self.created_at + _TEN_MINUTES if running else None,
            "cancelled_at": at("cancelled"),
            "failed_at": None,
            "completed_at": at("completed"),
        }

    def _actions(self) -> Json:
        calls = [
            {**call, "function": {k: v for k, v in call["function"].items() if k != "output"}}
            for call in self.calls
        ]
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
        cut = {"reason": "max_completion_tokens"} if self.status == "incomplete" else None
        return {
            "required_action": action if calls else None,
            "last_error": None,
            "incomplete_details": cut,
        }

    def weight(self) -> int:
        return len(orjson.dumps([self.options, self.asked]))


RUNS: Final = web.AppKey("runs", Shelf[Run])


def set_up(app: web.Application) -> None:
    """Give the application its memory of runs."""
    app[RUNS] = Shelf("No run found with id '{id}'.", weigh=Run.weight, drop=_free)


def _free(run: Run) -> None:
    """A forgotten run is at work no more."""
    if run.thread.run_id == run.id:
        run.thread.run_id = None


def _usage(given: int, made: int) -> Json:
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


# -- making a run ----------------------------------------------------------------------------------


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}/runs"""
    thread = thread_of(request)
    body = check_params(await read_json(request), RULES, ("assistant_id",))
    added: list[Json] = body.get("additional_messages", [])
    each(added, "additional_messages", check_message)
    assistant = _checked(request, body)
    if thread.run_id is not None:
        raise ApiError(400, f"Thread {thread.id} already has an active run {thread.run_id}.")
    for message in added:
        add_message(request.app, thread, message)
    return await _begin(request, body, thread, assistant)


async def create_with_thread(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/runs"""
    body = check_params(await read_json(request), THREAD_AND_RUN_RULES, ("assistant_id",))
    assistant = _checked(request, body)
    thread = make_thread(request.app, body.get("thread", {}), "thread")
    return await _begin(request, body, thread, assistant, [("thread.created", thread.shown())])


def _checked(request: web.Request, body: Json) -> Assistant:
    check_tools(body.get("tools", []))
    check_format(body)
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        member(choice, "type", "tool_choice", _STRING)
        if choice["type"] == "function":
            function = member(choice, "function", "tool_choice", _OBJECT)
            member(function, "name", "tool_choice.function", _STRING)
    elif choice not in ("none", "auto", "required"):
        raise wrong_value("tool_choice", choice, ("none", "auto", "required"))
    return request.app[ASSISTANTS].get(body["assistant_id"])


async def _begin(
    request: web.Request,
    body: Json,
    thread: Thread,
    assistant: Assistant,
    before: list[Event] | None = None,
) -> web.StreamResponse:
    options = _options(body, assistant)
    asked = _as_chat(options, request.app, thread)
    run = Run(thread, assistant.id, options, asked, body.get("metadata", {}))
    request.app[RUNS].add(run)
    thread.run_id = run.id
    if body.get("stream"):
        return await send_named_events(request, _stream(request.app, run, before or []), _DONE)
    return json_response(run.shown(), headers=POLL_SOON)


def _options(body: Json, assistant: Assistant) -> Json:
    """The assistant's options, with what the run says otherwise."""
    own = assistant.shown()
    given = {name: body[name] for name in own if name in body and name != "metadata"}
    names = ("model", "instructions", "tools", "temperature", "top_p", "response_format")
    chosen = {name: given.get(name, own[name]) for name in names}
    more = body.get("additional_instructions")
    instructions = [text for text in (chosen["instructions"], more) if text]
    return {
        **chosen,
        "instructions": "\n".join(instructions),
        "tool_choice": body.get("tool_choice", "auto"),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "max_completion_tokens": body.get("max_completion_tokens"),
        "max_prompt_tokens": body.get("max_prompt_tokens"),
        "truncation_strategy": body.get(
            "truncation_strategy", {"type": "auto", "last_messages": None}
        ),
    }


def _as_chat(options: Json, app: web.Application, thread: Thread) -> Json:
    """The thread as a chat request."""
    said = [{"role": m.role, "content": m.words} for m in messages_of(app, thread)]
    said = said or [{"role": "user", "content": ""}]
    if options["instructions"]:
        said.insert(0, {"role": "system", "content": options["instructions"]})
    asked: Json = {"model": options["model"], "messages": said}
    if options["max_completion_tokens"] is not None:
        asked["max_completion_tokens"] = options["max_completion_tokens"]
    if isinstance(options["response_format"], dict):
        asked["response_format"] = options["response_format"]
    tools = [tool for tool in options["tools"] if tool["type"] == "function"]
    choice = options["tool_choice"]
    if tools:
        known = isinstance(choice, str) or choice["type"] == "function"
        asked |= {"tools": tools, "tool_choice": choice if known else "none"}
    return asked


# -- doing it --------------------------------------------------------------------------------------


def _steps_on(app: web.Application, run: Run) -> None:
    """What a poll does."""
    if run.streaming:
        return
    if run.status == "queued":
        run.become("in_progress")
    elif run.status == "in_progress":
        for _ in _work(app, run):
            pass
    elif run.status == "cancelling":
        for step in run.steps:
            step.status = "cancelled" if step.status == "in_progress" else step.status
        run.become("cancelled")


def _stream(app: web.Application, run: Run, before: list[Event]) -> Iterator[Event]:
    """The events of a run from where it is."""
    yield from before
    if not run.steps:
        yield "thread.run.created", run.shown()
    yield "thread.run.queued", run.shown()
    run.become("in_progress")
    run.streaming = True
    try:
        yield "thread.run.in_progress", run.shown()
        yield from _work(app, run)
    finally:
        run.streaming = False


def _work(app: web.Application, run: Run) -> Iterator[Event]:
    """Write the answer or ask for a tool, event by event."""
    choice = chat.choose(run.asked, 0)
    given = run.usage["prompt_tokens"] + chat.prompt_tokens(run.asked)
    usage = _usage(given, run.usage["completion_tokens"] + choice.tokens)
    if choice.call is None:
        yield from _answer(app, run, choice)
    else:
        yield from _ask_for_tool(run, choice.call)
    run.usage = usage
    if run.status == "cancelling":
        run.become("cancelled")
    elif choice.call is not None:
        run.become("requires_action")
    else:
        run.become("incomplete" if choice.finish_reason == "length" else "completed")
    yield f"thread.run.{run.status}", run.shown()


def _answer(app: web.Application, run: Run, choice: chat.Choice) -> Iterator[Event]:
    message = add_message(
        app,
        run.thread,
        {"role": "assistant", "content": []},
        status="in_progress",
        assistant_id=run.assistant_id,
        run_id=run.id,
    )
    created = {"type": "message_creation", "message_creation": {"message_id": message.id}}
    step = Step(run, created)
    run.steps.append(step)
    for name in ("created", "in_progress"):
        yield f"thread.run.step.{name}", step.shown()
    for name in ("created", "in_progress"):
        yield f"thread.message.{name}", message.shown()
    said: list[str] = []
    for piece in choice.pieces:
        if run.status == "cancelling":
            break
        said.append(piece)
        text = {"value": piece, "annotations": []}
        delta = {"content": [{"index": 0, "type": "text", "text": text}]}
        yield "thread.message.delta", {**_delta(message.id, "thread.message"), "delta": delta}
    whole = {"value": "".join(said), "annotations": []}
    message.content = [{"type": "text", "text": whole}]
    cancelled = run.status == "cancelling"
    message.status = "incomplete" if cancelled else "completed"
    step.status = "cancelled" if cancelled else "completed"
    app[MESSAGES].changed(message)
    step.usage = _usage(chat.prompt_tokens(run.asked), len(said))
    yield f"thread.message.{message.status}", message.shown()
    yield f"thread.run.step.{step.status}", step.shown()


def _ask_for_tool(run: Run, call: Json) -> Iterator[Event]:
    function = {**call["function"], "output": None}
    step = Step(run, {"type": "tool_calls", "tool_calls": [{**call, "function": function}]})
    run.steps = [*run.steps, step][-_MOST_STEPS:]
    for name in ("created", "in_progress"):
        yield f"thread.run.step.{name}", {**step.shown(), "step_details": _no_calls()}
    yield (
        "thread.run.step.delta",
        _call_delta(step, {**call, "function": {**function, "arguments": ""}}),
    )
    for piece in chat.written_pieces(function["arguments"]):
        part = {"type": "function", "function": {"arguments": piece}}
        yield "thread.run.step.delta", _call_delta(step, part)


def _no_calls() -> Json:
    return {"type": "tool_calls", "tool_calls": []}


def _delta(key: str, kind: str) -> Json:
    return {"id": key, "object": f"{kind}.delta"}


def _call_delta(step: Step, call: Json) -> Json:
    details = {"type": "tool_calls", "tool_calls": [{"index": 0, **call}]}
    return {**_delta(step.id, "thread.run.step"), "delta": {"step_details": details}}


# -- a run that is there ---------------------------------------------------------------------------


def _run(request: web.Request) -> Run:
    thread = thread_of(request)
    run = request.app[RUNS].get(request.match_info["run_id"])
    if run.thread is not thread:
        raise ApiError(404, f"No run found with id '{run.id}'.")
    return run


async def listed(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}/runs"""
    thread, kept = thread_of(request), request.app[RUNS]
    return json_response(page(request.query, [run for run in kept if run.thread is thread]))


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}/runs/{run_id}. Each one moves the run on."""
    run = _run(request)
    _steps_on(request.app, run)
    return json_response(run.shown(), headers=POLL_SOON)


async def modify(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}/runs/{run_id}"""
    run = _run(request)
    given = check_params(await read_json(request), _METADATA_RULES, ())
    run.metadata = given.get("metadata", run.metadata)
    return json_response(run.shown())


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}/runs/{run_id}/cancel"""
    run = _run(request)
    if run.status not in ("queued", "in_progress", "requires_action"):
        raise ApiError(400, f"Cannot cancel run with status '{run.status}'.")
    run.become("cancelling")
    return json_response(run.shown())


async def submit_tool_outputs(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}/runs/{run_id}/submit_tool_outputs"""
    run = _run(request)
    body = check_params(await read_json(request), _OUTPUT_RULES, ("tool_outputs",))
    if run.status != "requires_action":
        message = f"Runs in status '{run.status}' do not accept tool outputs."
        raise ApiError(400, message)
    outputs = {}
    for at, output in enumerate(body["tool_outputs"]):
        _OBJECT.check(f"tool_outputs[{at}]", output)
        key = member(output, "tool_call_id", f"tool_outputs[{at}]", _STRING)
        outputs[key] = str(output.get("output") or "")
    _take(run, outputs)
    request.app[RUNS].changed(run)
    if body.get("stream"):
        return await send_named_events(request, _stream(request.app, run, []), _DONE)
    return json_response(run.shown(), headers=POLL_SOON)


def _take(run: Run, outputs: dict[str, str]) -> None:
    """Give the run what its tools said. Raises ApiError 400."""
    calls = run.calls
    expected = [call["id"] for call in calls]
    if sorted(outputs) != sorted(expected):
        message = f"Expected tool outputs for call_ids {expected}, got {sorted(outputs)}"
        raise ApiError(400, message, param="tool_outputs")
    for call in calls:
        call["function"]["output"] = outputs[call["id"]]
        result = {"role": "tool", "tool_call_id": call["id"], "content": outputs[call["id"]]}
        run.asked["messages"].append(result)
    run.steps[-1].status = "completed"
    if "tools" in run.asked:
        run.asked["tool_choice"] = "auto"  # what had to be called has been
    run.become("queued")


async def steps(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}/runs/{run_id}/steps"""
    return json_response(page(request.query, _run(request).steps))


async def step(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}/runs/{run_id}/steps/{step_id}"""
    key = request.match_info["step_id"]
    for found in _run(request).steps:
        if found.id == key:
            return json_response(found.shown())
    raise ApiError(404, f"No run step found with id '{key}'.")


_RUNS: Final = "/v1/threads/{id}/runs"
ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/threads/runs", beta(create_with_thread)),
    ("POST", _RUNS, beta(create)),
    ("GET", _RUNS, beta(listed)),
    ("GET", _RUNS + "/{run_id}", beta(retrieve)),
    ("POST", _RUNS + "/{run_id}", beta(modify)),
    ("POST", _RUNS + "/{run_id}/cancel", beta(cancel)),
    ("POST", _RUNS + "/{run_id}/submit_tool_outputs", beta(submit_tool_outputs)),
    ("GET", _RUNS + "/{run_id}/steps", beta(steps)),
    ("GET", _RUNS + "/{run_id}/steps/{step_id}", beta(step)),
)
