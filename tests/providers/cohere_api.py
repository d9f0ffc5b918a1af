"""Cohere's API: chat, embeddings and rerank of version 2, and the old generate.

The cohere package has no models of whole requests: its methods take their members one by one. The
models are made of those signatures (`V2Client.chat`, `.embed`, `.rerank`, `BaseCohere.generate`)
and the types they name. Answers and events are checked with its response types. What the API
refuses beyond that is in `_check_messages` and `_check_ranges`, with its source.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Literal

import cohere
import orjson
from cohere.base_client import BaseCohere
from cohere.v2.client import V2Client
from cohere.v2.types import V2ChatResponse, V2ChatStreamResponse, V2RerankResponse
from pydantic import create_model
from typing_extensions import override

from tests.providers import openai_api
from tests.providers.strict import Validator, made, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_pieces,
    json_reply,
    require_bearer,
    route,
    sse,
    vector,
    words,
)

_REASONS: Final = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR",
}


def _of(method: Callable[..., Any], **more: Any) -> Validator:
    """A validator made of a client method's parameters, which are the members of its request."""
    hints = typing.get_type_hints(method, include_extras=True)
    members: dict[str, Any] = dict(more)
    for name, parameter in inspect.signature(method).parameters.items():
        if name not in ("self", "request_options"):
            required = parameter.default is inspect.Parameter.empty
            members[name] = (hints[name], ... if required else None)
    return Validator(create_model(f"{method.__name__}_request", **members))


_STREAM: Final = (Literal[False], None)
_STREAMED: Final = (Literal[True], ...)
_CHAT: Final = _of(V2Client.chat, stream=_STREAM)
_CHAT_STREAM: Final = _of(V2Client.chat_stream, stream=_STREAMED)
_EMBED: Final = _of(V2Client.embed)
_RERANK: Final = _of(V2Client.rerank)
_RERANK_V1: Final = _of(BaseCohere.rerank)
_GENERATE: Final = _of(BaseCohere.generate, stream=_STREAM)
_GENERATE_STREAM: Final = _of(BaseCohere.generate_stream, stream=_STREAMED)


class Cohere(Upstream):
    """api.cohere.com: `/v2/chat`, `/v2/embed`, `/v2/rerank` and `/v1/generate`."""

    name = "cohere"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/v2/chat"), "chat"),
        (route("POST", "/v2/embed"), "embed"),
        (route("POST", "/v2/rerank"), "rerank"),
        (route("POST", "/v1/rerank"), "rerank_v1"),
        (route("POST", "/v1/generate"), "generate"),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        require_bearer(request, "no api key supplied")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://docs.cohere.com/reference/errors"""
        return json_reply({"id": "stand-in-error", "message": message}, status)

    def chat(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v2/chat"""
        body = parsed(request.body)
        (_CHAT_STREAM if body.get("stream") else _CHAT).check(body)
        _check_messages(body["messages"])
        _check_ranges(body)
        if not body.get("stream"):
            return json_reply(made(V2ChatResponse, _answer(turn)))
        frames = [sse(made(V2ChatStreamResponse, each), each["type"]) for each in _events(turn)]
        return Reply(
            frames=[*frames, openai_api.DONE],
            content_type="text/event-stream",
            error_frame=_error_frame,
        )

    def embed(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v2/embed"""
        body = parsed(request.body)
        _EMBED.check(body)
        texts = body.get("texts") or body.get("images") or []
        if not 1 <= len(texts) <= 96:  # V2Client.embed: texts
            raise RefusedError("invalid request: 1 to 96 texts are allowed")
        size = body.get("output_dimension") or 8
        kinds = body.get("embedding_types") or ["float"]
        values = {kind: [_typed(vector(text, size), kind) for text in texts] for kind in kinds}
        billed = {"input_tokens": float(turn.usage.input)}
        answer = {
            "id": "stand-in",
            "response_type": "embeddings_by_type",
            "embeddings": values,
            "texts": body.get("texts") or [],
            "meta": {"api_version": {"version": "2"}, "billed_units": billed},
        }
        return json_reply(made(cohere.EmbedByTypeResponse, answer))

    def rerank(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v2/rerank; the order is that of the documents."""
        body = parsed(request.body)
        _RERANK.check(body)
        return json_reply(made(V2RerankResponse, _ranked(body, "2")))

    def rerank_v1(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/rerank"""
        body = parsed(request.body)
        _RERANK_V1.check(body)
        return json_reply(made(cohere.RerankResponse, _ranked(body, "1")))

    def generate(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/generate; streamed as lines of JSON.
        https://docs.cohere.com/v1/reference/generate"""
        body = parsed(request.body)
        (_GENERATE_STREAM if body.get("stream") else _GENERATE).check(body)
        _check_ranges(body)
        if not body.get("stream"):
            return json_reply(made(cohere.Generation, _generation(turn, body)))
        frames = [
            orjson.dumps(made(cohere.GenerateStreamedResponse, each)) + b"\n"
            for each in _generate_events(turn, body)
        ]
        return Reply(frames=frames, content_type="application/stream+json")


# ---- requests


def _check_messages(messages: list[Json]) -> None:
    """https://docs.cohere.com/v2/docs/tool-use-overview: results follow the calls they answer."""
    if not messages:
        raise RefusedError("invalid request: messages must not be empty")
    calls: list[str] = []
    for at, each in enumerate(messages):
        if each["role"] == "tool":
            if each["tool_call_id"] not in calls:
                raise RefusedError(f"messages[{at}]: no tool call has the id of this tool result")
            calls.remove(each["tool_call_id"])
            continue
        if calls:
            break
        calls = [call["id"] for call in each.get("tool_calls") or ()]
        if each["role"] != "assistant" and not each["content"]:
            raise RefusedError(f"messages[{at}]: content must not be empty")
    if calls:
        raise RefusedError(f"all elements in history must have a message: no results for {calls}")


def _check_ranges(body: Json) -> None:
    """https://docs.cohere.com/v2/reference/chat"""
    ranges = {"p": (0.01, 0.99), "k": (0, 500), "temperature": (0, 2)}
    ranges |= {"frequency_penalty": (0, 1), "presence_penalty": (0, 1)}
    for name, (least, most) in ranges.items():
        value = body.get(name)
        if value is not None and not least <= value <= most:
            raise RefusedError(f"invalid request: {name} must be between {least} and {most}")
    if len(body.get("stop_sequences") or ()) > 5:
        raise RefusedError("invalid request: up to 5 stop_sequences are allowed")
    if body.get("tool_choice") is not None and not body.get("tools"):
        raise RefusedError("invalid request: tool_choice needs tools")


# ---- answers


def _error_frame(text: str) -> bytes:
    """ChatMessageEndEventDelta.error"""
    delta = {"error": text, "finish_reason": "ERROR"}
    event = {"type": "message-end", "id": "stand-in", "delta": delta}
    return sse(made(V2ChatStreamResponse, event), "message-end") + openai_api.DONE


def _usage(turn: Turn) -> Json:
    tokens = {"input_tokens": float(turn.usage.input), "output_tokens": float(turn.usage.output)}
    usage: Json = {"billed_units": dict(tokens), "tokens": tokens}
    if turn.usage.cached:
        usage["cached_tokens"] = float(turn.usage.cached)
    return usage


def _calls(turn: Turn) -> list[Json]:
    return [
        {
            "id": call.id or f"{call.name}_standin{at}",
            "type": "function",
            "function": {"name": call.name, "arguments": "".join(json_pieces(call.arguments))},
        }
        for at, call in enumerate(turn.tool_calls)
    ]


def _answer(turn: Turn) -> Json:
    """Beside tool calls, text is the tool plan."""
    message: Json = {"role": "assistant"}
    if turn.tool_calls:
        message |= {"tool_plan": turn.said or "I will use a tool.", "tool_calls": _calls(turn)}
        content = []
    else:
        content = [{"type": "text", "text": turn.said}]
    if turn.thinking:
        content.insert(0, {"type": "thinking", "thinking": turn.thinking})
    if content:
        message["content"] = content
    return {
        "id": "stand-in",
        "finish_reason": _REASONS[turn.reason],
        "message": message,
        "usage": _usage(turn),
    }


def _events(turn: Turn) -> Iterator[Json]:
    """https://docs.cohere.com/v2/docs/streaming"""
    start = {"role": "assistant"}
    yield {"type": "message-start", "id": "stand-in", "delta": {"message": start}}
    message = _answer(turn)["message"]
    for at, block in enumerate(message.get("content", [])):
        yield from _content_events(at, block)
    for text in words(message["tool_plan"]) if turn.tool_calls else []:
        yield {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}}
    for at, call in enumerate(message.get("tool_calls", [])):
        yield from _call_events(at, call)
    delta = {"finish_reason": _REASONS[turn.reason], "usage": _usage(turn)}
    yield {"type": "message-end", "id": "stand-in", "delta": delta}


def _content_events(at: int, block: Json) -> Iterator[Json]:
    kind = block["type"]
    start = {"message": {"content": {"type": kind, kind: ""}}}
    yield {"type": "content-start", "index": at, "delta": start}
    for text in words(block[kind]):
        delta = {"message": {"content": {kind: text}}}
        yield {"type": "content-delta", "index": at, "delta": delta}
    yield {"type": "content-end", "index": at}


def _call_events(at: int, call: Json) -> Iterator[Json]:
    function = call["function"]
    start = {**call, "function": {**function, "arguments": ""}}
    yield {"type": "tool-call-start", "index": at, "delta": {"message": {"tool_calls": start}}}
    text = function["arguments"]
    for begin in range(0, len(text), 5):
        piece = {"function": {"arguments": text[begin : begin + 5]}}
        yield {"type": "tool-call-delta", "index": at, "delta": {"message": {"tool_calls": piece}}}
    yield {"type": "tool-call-end", "index": at}


def _typed(values: list[float], kind: str) -> Any:
    if kind == "float":
        return values
    if kind == "base64":
        return "AAAAAA=="
    return [int(value * 100) if kind in ("int8", "binary") else 100 for value in values]


def _generation(turn: Turn, body: Json) -> Json:
    generation = {"id": "stand-in-0", "text": turn.said}
    tokens = {"input_tokens": float(turn.usage.input), "output_tokens": float(turn.usage.output)}
    return {
        "id": "stand-in",
        "prompt": body["prompt"],
        "generations": [generation] * (body.get("num_generations") or 1),
        "meta": {"api_version": {"version": "1"}, "billed_units": tokens},
    }


def _generate_events(turn: Turn, body: Json) -> Iterator[Json]:
    for text in words(turn.said):
        yield {"event_type": "text-generation", "text": text, "is_finished": False}
    reason = "MAX_TOKENS" if turn.reason == "length" else "COMPLETE"
    last = {"id": "stand-in-0", "text": turn.said, "finish_reason": reason}
    response = {"id": "stand-in", "prompt": body["prompt"], "generations": [last]}
    yield {
        "event_type": "stream-end",
        "is_finished": True,
        "finish_reason": reason,
        "response": response,
    }


def _ranked(body: Json, version: str) -> Json:
    count = min(body.get("top_n") or len(body["documents"]), len(body["documents"]))
    results = [{"index": at, "relevance_score": 0.9 / (at + 1)} for at in range(count)]
    meta = {"api_version": {"version": version}, "billed_units": {"search_units": 1.0}}
    return {"id": "stand-in", "results": results, "meta": meta}
