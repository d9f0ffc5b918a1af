"""Mistral's API: chat completions and embeddings.

Requests are checked with mistralai's request models, answers with its response models. What the
API refuses although those models take it is in `_check_turns`: the order of roles and the form of
tool call ids, after https://github.com/mistralai/mistral-common (the validator the API runs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from mistralai.client import models
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
    words,
)

_CHAT: Final = Validator(models.ChatCompletionRequest)
_CHAT_STREAM: Final = Validator(models.ChatCompletionStreamRequest)
_EMBED: Final = Validator(models.EmbeddingRequest)
_CALL_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_REASONS: Final = {"content_filter": "error"}  # models.ChatCompletionChoiceFinishReason


class Mistral(Upstream):
    """api.mistral.ai: `/v1/chat/completions` and `/v1/embeddings`."""

    name = "mistral"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/v1/chat/completions"), "chat"),
        (route("POST", "/v1/embeddings"), "embed"),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        require_bearer(request, "Unauthorized")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://docs.mistral.ai/api: what does not validate is 422 with a list of details."""
        if status == 400:
            detail = [{"loc": ["body"], "msg": message, "type": "value_error"}]
            made(models.ValidationError, detail[0])
            return json_reply({"detail": detail}, 422)
        return json_reply({"object": "error", "message": message, "type": "error"}, status)

    def chat(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/chat/completions"""
        body = parsed(request.body)
        (_CHAT_STREAM if body.get("stream") else _CHAT).check(body)
        _check_turns(body["messages"])
        if not body.get("stream"):
            return json_reply(made(models.ChatCompletionResponse, _completion(turn, body)))
        frames = [sse(made(models.CompletionChunk, each)) for each in _chunks(turn, body["model"])]
        return openai_api.event_stream([*frames, openai_api.DONE])

    def embed(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/embeddings"""
        body = parsed(request.body)
        _EMBED.check(body)
        given = {**body, "dimensions": body.get("output_dimension")}
        answer = {"id": "StandIn", **openai_api.embeddings(given, turn, packed=False)}
        answer["usage"]["completion_tokens"] = 0
        return json_reply(made(models.EmbeddingResponse, answer))


def _check_turns(messages: list[Json]) -> None:
    if not messages:
        raise RefusedError("Conversation must have at least one message")
    calls: list[str] = []
    for at, each in enumerate(messages):
        role = each["role"]
        if role == "tool":
            calls = _answered(calls, each)
            continue
        if calls:
            raise RefusedError("Not the same number of function calls and responses")
        if role in ("user", "system") and at and messages[at - 1]["role"] == "tool":
            raise RefusedError(f"Unexpected role '{role}' after role 'tool'")
        if role == "assistant" and not each.get("content") and not each.get("tool_calls"):
            raise RefusedError("Assistant message must have either content or tool_calls.")
        calls = [_checked_id(call["id"]) for call in each.get("tool_calls") or ()]
    last = messages[-1]
    if last["role"] not in ("user", "tool") and not last.get("prefix"):
        raise RefusedError(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
            f"{last['role']}"
        )
    if calls:
        raise RefusedError("Not the same number of function calls and responses")


def _checked_id(name: str) -> str:
    if not _CALL_ID.fullmatch(name):
        raise RefusedError(
            f"Tool call id was {name} but must be a-z, A-Z, 0-9, with a length of 9."
        )
    return name


def _answered(calls: list[str], message: Json) -> list[str]:
    name = _checked_id(message.get("tool_call_id") or "")
    if name not in calls:
        raise RefusedError(f"Unexpected tool call id {name} in tool results")
    return [each for each in calls if each != name]


def _reason(turn: Turn) -> str:
    return _REASONS.get(turn.reason, turn.reason)


def _calls(turn: Turn) -> list[Json]:
    return [
        {
            "id": call.id or f"StandIn0{at}"[:9],
            "type": "function",
            "index": at,
            "function": {"name": call.name, "arguments": "".join(json_pieces(call.arguments))},
        }
        for at, call in enumerate(turn.tool_calls)
    ]


def _usage(turn: Turn) -> Json:
    return {
        "prompt_tokens": turn.usage.input,
        "completion_tokens": turn.usage.output,
        "total_tokens": turn.usage.input + turn.usage.output,
    }


def _content(turn: Turn) -> Any:
    """Text, or with thinking the list of chunks that reasoning models answer.
    https://docs.mistral.ai/capabilities/reasoning"""
    if not turn.thinking:
        return turn.said
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": turn.thinking}]}
    return [thinking, *([{"type": "text", "text": turn.said}] if turn.said else [])]


def _completion(turn: Turn, body: Json) -> Json:
    message = {"role": "assistant", "content": _content(turn), "tool_calls": _calls(turn) or None}
    choices = [
        {"index": at, "message": message, "finish_reason": _reason(turn)}
        for at in range(body.get("n") or 1)
    ]
    envelope = {"id": "StandIn", "object": "chat.completion", "created": openai_api.CREATED}
    return {**envelope, "model": body["model"], "choices": choices, "usage": _usage(turn)}


def _chunks(turn: Turn, model: str) -> Iterator[Json]:
    """Calls come whole, and the last chunk has the reason and the usage, asked for or not."""

    def chunk(delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        envelope = {"id": "StandIn", "object": "chat.completion.chunk"}
        return {**envelope, "created": openai_api.CREATED, "model": model, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    for text in words(turn.thinking) if turn.thinking else []:
        inner = [{"type": "text", "text": text}]
        yield chunk({"content": [{"type": "thinking", "thinking": inner}]})
    for text in words(turn.said) if turn.said else []:
        yield chunk({"content": text})
    last: Json = {"content": ""}
    if turn.tool_calls:
        last["tool_calls"] = _calls(turn)
    yield {**chunk(last, _reason(turn)), "usage": _usage(turn)}
