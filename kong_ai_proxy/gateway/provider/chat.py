"""The stand-in provider's chat completions: one-shot, streamed, with tools, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from kong_ai_proxy.gateway.provider import text
from kong_ai_proxy.gateway.provider.chat_check import check_chat, words_of
from kong_ai_proxy.gateway.provider.example import example
from kong_ai_proxy.gateway.provider.http import (
    FINGERPRINT,
    ApiError,
    Json,
    Route,
    json_response,
    new_id,
    now,
    read_json,
    send_events,
    wants_usage,
)

_IMAGE_TOKENS: Final = 85
_MESSAGE_TOKENS: Final = 3  # each message's own overhead, as OpenAI counts it


@dataclass(frozen=True)
class Choice:
    """One answer: either text in pieces, or a call of a tool."""

    pieces: tuple[str, ...]
    finish_reason: str
    call: Json | None = None
    legacy: bool = False  # `functions` instead of `tools`

    @property
    def message(self) -> Json:
        base: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        if self.call is None:
            return {**base, "content": "".join(self.pieces)}
        if self.legacy:
            return {**base, "function_call": self.call["function"]}
        return {**base, "tool_calls": [self.call]}

    @property
    def tokens(self) -> int:
        if self.call is None:
            return len(self.pieces)
        called = self.call.get("function") or self.call["custom"]
        return text.count(str(called)) + 3


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions"""
    body = await read_json(request)
    if not body.get("stream"):
        return json_response(answer(body))
    body = check_chat(body)
    choices, usage = _choices(body)
    return await send_events(request, _chunks(body, choices, usage))


def answer(body: Json) -> Json:
    """The whole answer to a request. Raises ApiError 400."""
    body = check_chat(body)
    choices, usage = _choices(body)
    answers = [
        {
            "index": number,
            "message": choice.message,
            "logprobs": logprobs(body, choice.pieces),
            "finish_reason": choice.finish_reason,
        }
        for number, choice in enumerate(choices)
    ]
    return {**_head(body, "chat.completion"), "choices": answers, "usage": usage}


def _choices(body: Json) -> tuple[list[Choice], Json]:
    choices = [choose(body, number) for number in range(body.get("n", 1))]
    return choices, text.usage(prompt_tokens(body), sum(choice.tokens for choice in choices))


ROUTES: Final[tuple[Route, ...]] = (("POST", "/v1/chat/completions", chat),)


def _head(body: Json, kind: str) -> Json:
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": now(),
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def prompt_tokens(body: Json) -> int:
    """How many tokens a checked request has."""
    total = 0
    for message in body["messages"]:
        total += _MESSAGE_TOKENS + text.count(words_of(message))
        parts = message.get("content")
        if isinstance(parts, list):
            total += sum(_IMAGE_TOKENS for part in parts if part["type"] == "image_url")
    for tool in body.get("tools", []):
        total += text.count(json.dumps(tool))
    return total


def _last(messages: list[Json], role: str) -> str:
    return next((words_of(m) for m in reversed(messages) if m["role"] == role), "")


def choose(body: Json, number: int) -> Choice:
    """The answer a checked request gets: a tool call when one is due, else text."""
    messages = body["messages"]
    question = _last(messages, "user")
    tools, forced = _offered(body)
    if tools and (forced or messages[-1]["role"] not in ("tool", "function")):
        tool = max(tools, key=lambda tool: _fitness(tool, question))
        legacy = "functions" in body
        reason = "function_call" if legacy else "stop" if forced else "tool_calls"
        return Choice((), reason, _call(tool, question), legacy)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    stop = body.get("stop", [])
    made = text.generate(
        _text(body, question, number), [stop] if isinstance(stop, str) else stop, limit
    )
    return Choice(made.pieces, made.finish_reason)


def _text(body: Json, question: str, number: int) -> str:
    wanted = body.get("response_format", {"type": "text"})
    if wanted["type"] == "json_schema":
        schema = wanted["json_schema"].get("schema", {})
        return _written_example(schema, question, "response_format", every=True)
    last = body["messages"][-1]
    if last["role"] in ("tool", "function"):
        answer = text.reply_to_tool(question, words_of(last), number)
    else:
        answer = text.reply(question, number)
    if wanted["type"] == "json_object":
        return orjson.dumps({"answer": answer}).decode()
    return answer


def _offered(body: Json) -> tuple[list[Json], bool]:
    """The tools that may be called, and whether the request names the one that must be."""
    functions = [{"type": "function", "function": f} for f in body.get("functions", [])]
    tools = body.get("tools", functions)
    choice: Any = body.get("tool_choice", body.get("function_call", "auto"))
    if choice == "none":
        return [], False
    if isinstance(choice, str):
        return tools, False
    if choice.get("type") == "allowed_tools":
        names = {_name(tool) for tool in choice["allowed_tools"]["tools"]}
        return [tool for tool in tools if _name(tool) in names], False
    name = _name(choice) if "type" in choice else choice["name"]
    return [tool for tool in tools if _name(tool) == name], True


def _name(tool: Json) -> str:
    return str(tool[tool["type"]]["name"])


def _fitness(tool: Json, question: str) -> int:
    """How many words a tool's description shares with the question."""
    described = tool[tool["type"]]
    words = f"{described['name']} {described.get('description') or ''}".lower().replace("_", " ")
    return len(set(words.split()) & set(question.lower().strip("?!.").split()))


def _call(tool: Json, question: str) -> Json:
    call: Json = {"id": new_id("call_"), "type": tool["type"]}
    if tool["type"] == "custom":
        return {**call, "custom": {"name": _name(tool), "input": question or text.LABEL}}
    parameters = tool["function"].get("parameters") or {}
    strict = bool(tool["function"].get("strict"))
    schema = {"type": "object", **parameters}
    arguments = _written_example(schema, question, "tools", every=strict)
    return {**call, "function": {"name": _name(tool), "arguments": arguments}}


def _written_example(schema: Any, question: str, param: str, *, every: bool) -> str:
    """JSON that fits a client's schema. Raises ApiError 400 for one that makes no sense."""
    try:
        return orjson.dumps(example(schema, question, every=every)).decode()
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise ApiError(400, f"Invalid schema in '{param}': {error}.", param=param) from None


def logprobs(body: Json, pieces: tuple[str, ...]) -> Json | None:
    """The log probabilities of an answer's pieces, where the request asks for them."""
    if not body.get("logprobs") or not pieces:
        return None
    return {"content": [_logprob(body, piece) for piece in pieces], "refusal": None}


def _logprob(body: Json, piece: str) -> Json:
    own = {"token": piece, "logprob": -0.1, "bytes": list(piece.encode())}
    return {**own, "top_logprobs": [own] if body.get("top_logprobs") else []}


def _chunks(body: Json, choices: list[Choice], usage: Json) -> Iterator[Json]:
    """The chunks of a streamed answer; with include_usage the last one carries the usage."""
    head = _head(body, "chat.completion.chunk")
    if wants_usage(body):
        head["usage"] = None
    for number, choice in enumerate(choices):
        for delta in _deltas(choice):
            piece = (delta["content"],) if delta.get("content") else ()
            yield {**head, "choices": [_delta(number, delta, logprobs(body, piece))]}
        yield {**head, "choices": [_delta(number, {}, None, choice.finish_reason)]}
    if wants_usage(body):
        yield {**head, "choices": [], "usage": usage}


def _delta(number: int, delta: Json, logprobs: Json | None, reason: str | None = None) -> Json:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _deltas(choice: Choice) -> Iterator[Json]:
    first: Json = {"role": "assistant", "content": None, "refusal": None}
    if choice.call is None:
        yield {**first, "content": ""}
        yield from ({"content": piece} for piece in choice.pieces)
        return
    kind = str(choice.call["type"])
    filled = "input" if kind == "custom" else "arguments"
    whole: dict[str, Any] = choice.call[kind]
    opening = {**whole, filled: ""}
    if choice.legacy:
        yield {**first, "function_call": opening}
        yield from ({"function_call": {filled: part}} for part in written_pieces(whole[filled]))
        return
    yield {**first, "tool_calls": [{"index": 0, **choice.call, kind: opening}]}
    for part in written_pieces(whole[filled]):
        yield {"tool_calls": [{"index": 0, kind: {filled: part}}]}


def written_pieces(written: str) -> Iterator[str]:
    """JSON text in pieces of a few characters, as a model writes it."""
    return (written[at : at + 6] for at in range(0, len(written), 6))
