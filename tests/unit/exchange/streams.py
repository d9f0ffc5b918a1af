"""Streams as OpenAI and those that speak its format send them."""

from __future__ import annotations

from typing import Any

import orjson

Json = dict[str, Any]


def sse(*values: Json | bytes, name: str = "") -> bytes:
    """Each value as the data of one event."""
    raw = [value if isinstance(value, bytes) else orjson.dumps(value) for value in values]
    head = f"event: {name}\n".encode() if name else b""
    return b"".join(head + b"data: " + each + b"\n\n" for each in raw)


def typed(*values: Json) -> bytes:
    """Events named as their `type`, as the responses API sends them."""
    return b"".join(sse(value, name=value["type"]) for value in values)


def chunk(content: str | None = None, **members: Any) -> Json:
    """A chunk of chat."""
    added = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": added, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
        **members,
    }


def told(prompt: int = 9, completion: int = 3) -> Json:
    """A usage object of chat."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


DONE = sse(b"[DONE]")

ROLE = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
STOP = {"index": 0, "delta": {}, "finish_reason": "stop"}

CHAT = (
    sse(
        chunk(choices=[ROLE], usage=None),
        chunk("H\u00e9llo", usage=None),
        chunk(' "wor\\ld" \U0001f600', usage=None, obfuscation="x1"),
        chunk(choices=[STOP], usage=None),
        chunk(choices=[], usage=told()),
    )
    + DONE
)
CHAT_STRIPPED = (
    sse(
        chunk(choices=[ROLE]),
        chunk("H\u00e9llo"),
        chunk(' "wor\\ld" \U0001f600', obfuscation="x1"),
        chunk(choices=[STOP]),
    )
    + DONE
)


def _calls(*pieces: Json) -> Json:
    return chunk(choices=[{"index": 0, "delta": {"tool_calls": list(pieces)}}])


def _call(index: int, **members: Any) -> Json:
    return {"index": index, **members}


TOOLS = (
    sse(
        chunk(choices=[ROLE]),
        _calls(_call(0, id="call_a", type="function", function={"name": "f", "arguments": ""})),
        _calls(_call(0, function={"arguments": '{"x"'})),
        _calls(_call(1, id="call_b", type="function", function={"name": "g", "arguments": "{}"})),
        _calls(_call(0, function={"arguments": ":1}"})),
        chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]),
    )
    + DONE
)

COMPLETIONS = (
    sse(
        {"id": "c1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
        | {"choices": [{"text": "one", "index": 0, "logprobs": None, "finish_reason": None}]},
        {"id": "c1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
        | {"choices": [{"text": " two", "index": 0, "logprobs": None, "finish_reason": "stop"}]},
        {"id": "c1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
        | {"choices": [], "usage": told(4, 2)},
    )
    + DONE
)


def response(status: str, **members: Any) -> Json:
    """A response object."""
    empty: Json = {"error": None, "output": [], "usage": None}
    return {"id": "r1", "object": "response", "status": status, "model": "gpt-4.1", **empty} | (
        members
    )


OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "Hi there"}]}]
RESPONSE_USAGE = {
    "input_tokens": 37,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 48,
}
COMPLETED = response("completed", output=OUTPUT, usage=RESPONSE_USAGE, service_tier="default")
RESPONSES_START = (
    {"type": "response.created", "response": response("in_progress")},
    {"type": "response.in_progress", "response": response("in_progress")},
    {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
)
RESPONSES = typed(
    *RESPONSES_START,
    {"type": "response.output_text.delta", "delta": "Hi"},
    {"type": "response.output_text.delta", "delta": " there"},
    {"type": "response.output_text.done", "text": "Hi there"},
    {"type": "response.completed", "response": COMPLETED},
)

IMAGE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 200,
    "total_tokens": 250,
}
IMAGES = typed(
    {"type": "image_generation.partial_image", "b64_json": "iVBOR" * 10, "partial_image_index": 0},
    {"type": "image_generation.completed", "b64_json": "iVBOR" * 20, "usage": IMAGE_USAGE},
)
TRANSCRIPT = sse(
    {"type": "transcript.text.delta", "delta": "Hel"},
    {"type": "transcript.text.delta", "delta": "lo"},
    {
        "type": "transcript.text.done",
        "text": "Hello",
        "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16},
    },
)
SPEECH = sse(
    {"type": "speech.audio.delta", "audio": "SUQz" * 10},
    {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 5, "output_tokens": 40, "total_tokens": 45},
    },
)

RUN = {"id": "run_1", "object": "thread.run", "model": "gpt-4o", "usage": None, "last_error": None}
STEP_USAGE = told(10, 4)
ASSISTANT = (
    sse(RUN, name="thread.run.created")
    + sse({"object": "thread.message.delta", "delta": {"content": []}}, name="thread.message.delta")
    + sse({"id": "msg_1", "object": "thread.message"}, name="thread.message.completed")
    + sse({"object": "thread.run.step", "usage": STEP_USAGE}, name="thread.run.step.completed")
    + sse({**RUN, "usage": told(20, 8)}, name="thread.run.completed")
    + sse(b"[DONE]", name="done")
)
