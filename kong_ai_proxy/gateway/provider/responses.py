"""The stand-in provider's responses: one-shot, streamed, in the background; remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from kong_ai_proxy.gateway.provider import chat, responses_stream
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    json_response,
    new_id,
    now,
    read_json,
    send_named_events,
)
from kong_ai_proxy.gateway.provider.responses_check import as_chat, check_response, items
from kong_ai_proxy.gateway.provider.shelf import Shelf, page

_UNTIL_DONE: Final = ("queued", "in_progress")  # what a background response is, poll by poll
_PLAIN_FORMAT: Final = {"format": {"type": "text"}, "verbosity": "medium"}


@dataclass
class Item:
    """A piece of an input, as a list shows it."""

    content: Json

    @property
    def id(self) -> str:
        return str(self.content["id"])

    def shown(self) -> Json:
        return self.content


@dataclass
class Stored:
    """A response, its input, and all that was said up to its end."""

    final: Json
    input: list[Json]
    history: list[Json]
    polls: int = field(default=len(_UNTIL_DONE))  # how often it has been asked for
    cancelled: bool = False

    @property
    def id(self) -> str:
        return str(self.final["id"])

    @property
    def done(self) -> bool:
        return self.polls >= len(_UNTIL_DONE)

    def shown(self) -> Json:
        if self.cancelled:
            return {**unfinished(self.final), "status": "cancelled"}
        if not self.done:
            return {**unfinished(self.final), "status": _UNTIL_DONE[self.polls]}
        return self.final

    def weight(self) -> int:
        return len(orjson.dumps([self.final, self.history]))


RESPONSES: Final = web.AppKey("responses", Shelf[Stored])


def set_up(app: web.Application) -> None:
    """Give the application its memory of responses."""
    app[RESPONSES] = Shelf(
        "Response with id '{id}' not found.", param="response_id", weigh=Stored.weight
    )


def unfinished(response: Json) -> Json:
    """A response before there is anything in it."""
    return {
        **response,
        "status": "in_progress",
        "completed_at": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses"""
    body = check_response(await read_json(request))
    stored = _made(body, request.app[RESPONSES])
    if body.get("background") and not body.get("stream"):
        stored.polls = 0
    if body.get("store", True):
        request.app[RESPONSES].add(stored)
    if body.get("stream"):
        return await send_named_events(
            request, responses_stream.events(unfinished(stored.final), stored.final)
        )
    return json_response(stored.shown())


def answer(body: Json, shelf: Shelf[Stored]) -> Json:
    """The whole answer to a request, remembered like any other. Raises ApiError."""
    body = check_response(body)
    stored = _made(body, shelf)
    if body.get("store", True):
        shelf.add(stored)
    return stored.final


def _made(body: Json, shelf: Shelf[Stored]) -> Stored:
    if "conversation" in body:
        named = body["conversation"]
        key = named if isinstance(named, str) else named.get("id")
        raise ApiError(404, f"Conversation with id '{key}' not found.", param="conversation")
    given = items(body["input"])
    history = [*_before(body, shelf), *given]
    asked = as_chat(body, history)
    choice = chat.choose(asked, 0)
    output = _output(asked, choice)
    return Stored(_response(body, asked, choice, output), given, [*history, output])


def _before(body: Json, shelf: Shelf[Stored]) -> list[Json]:
    key = body.get("previous_response_id")
    if key is None:
        return []
    try:
        return shelf.get(key).history
    except ApiError:
        raise ApiError(
            400,
            f"Previous response with id '{key}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from None


def _output(asked: Json, choice: chat.Choice) -> Json:
    """The one item of the answer: a message, or the call of a tool."""
    if choice.call is None:
        status = "incomplete" if choice.finish_reason == "length" else "completed"
        found = chat.logprobs(asked, choice.pieces) or {"content": []}
        text = {
            "type": "output_text",
            "text": "".join(choice.pieces),
            "annotations": [],
            "logprobs": found["content"],
        }
        head = {"id": new_id("msg_"), "type": "message", "status": status}
        return {**head, "role": "assistant", "content": [text]}
    kind = choice.call["type"]
    called: dict[str, Any] = choice.call[kind]
    names = {"function": ("fc_", "function_call"), "custom": ("ctc_", "custom_tool_call")}
    prefix, type_ = names[kind]
    head = {"id": new_id(prefix), "type": type_, "status": "completed"}
    return {**head, "call_id": choice.call["id"], **called}


def _response(body: Json, asked: Json, choice: chat.Choice, output: Json) -> Json:
    cut = choice.finish_reason == "length"
    made = now()
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": made,
        "completed_at": None if cut else made,
        "status": "incomplete" if cut else "completed",
        "background": body.get("background", False),
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": body.get("metadata", {}),
        "model": body["model"],
        "output": [output],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **body.get("reasoning", {})},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {**_PLAIN_FORMAT, **body.get("text", {})},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": [_shown_tool(tool) for tool in body.get("tools", [])],
        "top_logprobs": body.get("top_logprobs", 0),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": usage(chat.prompt_tokens(asked), choice.tokens),
        "user": body.get("user"),
    }


def _shown_tool(tool: Json) -> Json:
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": {}, "strict": True, **tool}


def usage(given: int, made: int) -> Json:
    """The usage object of the responses API."""
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }


def _named(request: web.Request) -> Stored:
    return request.app[RESPONSES].get(request.match_info["id"])


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/responses/{id}. Each one moves a background response on."""
    stored = _named(request)
    stored.polls += 1
    return json_response(stored.shown())


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/responses/{id}"""
    stored = request.app[RESPONSES].remove(request.match_info["id"])
    return json_response({"id": stored.id, "object": "response", "deleted": True})


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses/{id}/cancel"""
    stored = _named(request)
    if not stored.final["background"]:
        raise ApiError(400, "Cannot cancel a synchronous response.", param="response_id")
    stored.cancelled = not stored.done
    return json_response(stored.shown())


async def input_items(request: web.Request) -> web.StreamResponse:
    """GET /v1/responses/{id}/input_items"""
    return json_response(page(request.query, [Item(item) for item in _named(request).input]))


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/responses", create),
    ("GET", "/v1/responses/{id}", retrieve),
    ("DELETE", "/v1/responses/{id}", delete),
    ("POST", "/v1/responses/{id}/cancel", cancel),
    ("GET", "/v1/responses/{id}/input_items", input_items),
)
