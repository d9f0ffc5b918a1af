"""The stand-in provider's assistants, version 2, and what their threads and runs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Handler,
    Json,
    Route,
    Rule,
    check_length,
    check_params,
    each,
    json_response,
    member,
    new_id,
    now,
    read_json,
    wrong_value,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf, page

_STRING: Final = Rule("a string")
_OBJECT: Final = Rule("an object")
RULES: Final[dict[str, Rule]] = {
    "description": _STRING,
    "instructions": _STRING,
    "metadata": _OBJECT,
    "model": _STRING,
    "name": _STRING,
    "reasoning_effort": _STRING,
    "response_format": Rule("a string or an object"),
    "temperature": Rule("a decimal", 0, 2),
    "tool_resources": _OBJECT,
    "tools": Rule("an array"),
    "top_p": Rule("a decimal", 0, 1),
}
_LONGEST: Final = {"description": 512, "instructions": 256_000, "name": 256}
_MOST_TOOLS: Final = 128


@dataclass
class Assistant:
    """An assistant: what was asked for, with its nulls gone."""

    id: str
    created_at: int
    asked: Json

    def shown(self) -> Json:
        asked = self.asked
        return {
            "id": self.id,
            "object": "assistant",
            "created_at": self.created_at,
            "name": asked.get("name"),
            "description": asked.get("description"),
            "model": asked["model"],
            "instructions": asked.get("instructions"),
            "tools": asked.get("tools", []),
            "tool_resources": shown_resources(asked.get("tool_resources")),
            "metadata": asked.get("metadata", {}),
            "temperature": asked.get("temperature", 1.0),
            "top_p": asked.get("top_p", 1.0),
            "response_format": asked.get("response_format", "auto"),
        }

    def weight(self) -> int:
        return len(orjson.dumps(self.asked))


ASSISTANTS: Final = web.AppKey("assistants", Shelf[Assistant])


def set_up(app: web.Application) -> None:
    """Give the application its memory of assistants."""
    app[ASSISTANTS] = Shelf("No assistant found with id '{id}'.", weigh=Assistant.weight)


def beta(handler: Handler) -> Handler:
    """The handler for requests that say `OpenAI-Beta: assistants=v2`; others get 400."""

    async def checked(request: web.Request) -> web.StreamResponse:
        betas = ",".join(request.headers.getall("OpenAI-Beta", [])).split(",")
        if "assistants=v2" not in (name.strip() for name in betas):
            raise ApiError(
                400,
                "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please "
                "try again by setting the header 'OpenAI-Beta: assistants=v2'.",
                code="invalid_beta",
            )
        return await handler(request)

    return checked


def shown_resources(asked: Json | None) -> Json:
    """Tool resources as the API shows them: ids, not what was asked to be made of them."""
    out: Json = {}
    names = {"code_interpreter": "file_ids", "file_search": "vector_store_ids"}
    for tool, ids in names.items():
        resource = (asked or {}).get(tool)
        if isinstance(resource, dict):
            out[tool] = {ids: resource.get(ids) or []}
    return out


def check_tools(tools: list[Json]) -> None:
    """Raises ApiError 400."""
    if len(tools) > _MOST_TOOLS:
        raise ApiError(
            400,
            f"Invalid 'tools': array too long. Expected an array with maximum length "
            f"{_MOST_TOOLS}, but got an array with length {len(tools)} instead.",
            param="tools",
            code="array_above_max_length",
        )
    each(tools, "tools", _check_tool)


def _check_tool(tool: Json, path: str) -> None:
    kinds = ("code_interpreter", "file_search", "function")
    if member(tool, "type", path, Rule("a string", options=kinds)) == "function":
        function = member(tool, "function", path, _OBJECT)
        member(function, "name", f"{path}.function", _STRING)
        if function.get("parameters") is not None:
            _OBJECT.check(f"{path}.function.parameters", function["parameters"])


def check_format(asked: Json) -> None:
    """A response_format: `auto` or an object. Raises ApiError 400."""
    wanted = asked.get("response_format", "auto")
    if isinstance(wanted, dict):
        options = ("text", "json_object", "json_schema")
        kind = member(wanted, "type", "response_format", Rule("a string", options=options))
        if kind == "json_schema":
            member(wanted, "json_schema", "response_format", _OBJECT)
    elif wanted != "auto":
        raise wrong_value("response_format", wanted, ("auto",))


def _checked(body: Json, required: tuple[str, ...]) -> Json:
    given = check_params(body, RULES, required)
    for name, most in _LONGEST.items():
        check_length(name, given.get(name, ""), most)
    check_tools(given.get("tools", []))
    check_format(given)
    return given


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/assistants"""
    given = _checked(await read_json(request), ("model",))
    made = Assistant(new_id("asst_"), now(), given)
    return json_response(request.app[ASSISTANTS].add(made).shown())


async def listed(request: web.Request) -> web.StreamResponse:
    """GET /v1/assistants"""
    kept = request.app[ASSISTANTS]
    return json_response(page(request.query, list(kept)))


def _named(request: web.Request) -> Assistant:
    return request.app[ASSISTANTS].get(request.match_info["id"])


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/assistants/{id}"""
    return json_response(_named(request).shown())


async def modify(request: web.Request) -> web.StreamResponse:
    """POST /v1/assistants/{id}"""
    assistant = _named(request)
    body = await read_json(request)
    given = _checked(body, ())
    emptied = [name for name, value in body.items() if value is None and name != "model"]
    kept = {name: value for name, value in assistant.asked.items() if name not in emptied}
    assistant.asked = {**kept, **given}
    return json_response(request.app[ASSISTANTS].changed(assistant).shown())


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/assistants/{id}"""
    gone = request.app[ASSISTANTS].remove(request.match_info["id"])
    return json_response({"id": gone.id, "object": "assistant.deleted", "deleted": True})


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/assistants", beta(create)),
    ("GET", "/v1/assistants", beta(listed)),
    ("GET", "/v1/assistants/{id}", beta(retrieve)),
    ("POST", "/v1/assistants/{id}", beta(modify)),
    ("DELETE", "/v1/assistants/{id}", beta(delete)),
)
