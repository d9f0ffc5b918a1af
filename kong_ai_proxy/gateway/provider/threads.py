"""The stand-in provider's threads and their messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from kong_ai_proxy.gateway.provider.assistants import beta, shown_resources
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    each,
    json_response,
    member,
    missing,
    new_id,
    now,
    read_json,
    wrong_type,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf, page

_OBJECT: Final = Rule("an object")
_ARRAY: Final = Rule("an array")
RULES: Final[dict[str, Rule]] = {
    "messages": _ARRAY,
    "metadata": _OBJECT,
    "tool_resources": _OBJECT,
}
UPDATE_RULES: Final[dict[str, Rule]] = {"metadata": _OBJECT, "tool_resources": _OBJECT}
MESSAGE_RULES: Final[dict[str, Rule]] = {
    "attachments": _ARRAY,
    "content": Rule("anything"),
    "metadata": _OBJECT,
    "role": Rule("a string", options=("user", "assistant")),
}
_METADATA_RULES: Final[dict[str, Rule]] = {"metadata": _OBJECT}
_PARTS: Final = ("text", "image_url", "image_file")
_MOST_MESSAGES: Final = 10_000  # of all threads together


@dataclass
class Thread:
    """A conversation. `run_id` names the run that is at work on it."""

    id: str
    created_at: int
    metadata: Json
    tool_resources: Json
    run_id: str | None = None

    def shown(self) -> Json:
        return {
            "id": self.id,
            "object": "thread",
            "created_at": self.created_at,
            "metadata": self.metadata,
            "tool_resources": self.tool_resources,
        }


@dataclass
class Message:
    """A message of a thread."""

    id: str
    thread_id: str
    created_at: int
    role: str
    content: list[Json]
    attachments: list[Json]
    metadata: Json
    status: str = "completed"
    assistant_id: str | None = None
    run_id: str | None = None

    def shown(self) -> Json:
        return {
            "id": self.id,
            "object": "thread.message",
            "created_at": self.created_at,
            "completed_at": self.created_at if self.status == "completed" else None,
            "incomplete_at": None,
            "incomplete_details": None,
            "thread_id": self.thread_id,
            "assistant_id": self.assistant_id,
            "run_id": self.run_id,
            "role": self.role,
            "status": self.status,
            "content": self.content,
            "attachments": self.attachments,
            "metadata": self.metadata,
        }

    def weight(self) -> int:
        return len(orjson.dumps(self.shown()))

    @property
    def words(self) -> str:
        """The text of its parts."""
        return " ".join(part["text"]["value"] for part in self.content if part["type"] == "text")


THREADS: Final = web.AppKey("threads", Shelf[Thread])
MESSAGES: Final = web.AppKey("messages", Shelf[Message])


def set_up(app: web.Application) -> None:
    """Give the application its memory of threads and messages."""
    app[THREADS] = Shelf("No thread found with id '{id}'.")
    app[MESSAGES] = Shelf(
        "No message found with id '{id}'.", most=_MOST_MESSAGES, weigh=Message.weight
    )


def thread_of(request: web.Request) -> Thread:
    """The thread that the path names. Raises ApiError 404."""
    return request.app[THREADS].get(request.match_info["id"])


def messages_of(app: web.Application, thread: Thread) -> list[Message]:
    """Oldest first."""
    kept = app[MESSAGES]
    return [message for message in kept if message.thread_id == thread.id]


def make_thread(app: web.Application, body: Json, path: str = "") -> Thread:
    """A new thread with its first messages. Raises ApiError 400."""
    given = check_params(body, RULES, (), path)
    where = f"{path}.messages" if path else "messages"
    asked: list[Json] = given.get("messages", [])
    each(asked, where, lambda message, at: check_message(message, at))
    resources = shown_resources(given.get("tool_resources"))
    thread = Thread(new_id("thread_"), now(), given.get("metadata", {}), resources)
    app[THREADS].add(thread)
    for message in asked:
        add_message(app, thread, message)
    return thread


def check_message(message: Json, path: str = "") -> None:
    """A message that a client brings. Raises ApiError 400."""
    given = check_params(message, MESSAGE_RULES, ("role", "content"), path)
    content, where = given["content"], f"{path}.content" if path else "content"
    if isinstance(content, list):
        if not content:
            raise missing(where)
        each(content, where, _check_part)
    elif not isinstance(content, str):
        raise wrong_type(where, "a string or array of objects", content)
    for at, attachment in enumerate(given.get("attachments", [])):
        _OBJECT.check(f"{path}.attachments[{at}]".lstrip("."), attachment)


def _check_part(part: Json, path: str) -> None:
    kind = member(part, "type", path, Rule("a string", options=_PARTS))
    value = member(part, kind, path, Rule("a string") if kind == "text" else _OBJECT)
    if kind != "text":
        name = "url" if kind == "image_url" else "file_id"
        member(value, name, f"{path}.{kind}", Rule("a string"))


def add_message(app: web.Application, thread: Thread, asked: Json, **more: Any) -> Message:
    """Put a checked message into a thread."""
    message = Message(
        new_id("msg_"),
        thread.id,
        now(),
        asked["role"],
        _content(asked["content"]),
        asked.get("attachments") or [],
        asked.get("metadata") or {},
        **more,
    )
    return app[MESSAGES].add(message)


def _content(content: Any) -> list[Json]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [_part(part) for part in parts]


def _part(part: Json) -> Json:
    if part["type"] == "text":
        return {"type": "text", "text": {"value": part["text"], "annotations": []}}
    kind = part["type"]
    return {"type": kind, kind: {"detail": "auto", **part[kind]}}


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads"""
    body = await read_json(request, optional=True)
    return json_response(make_thread(request.app, body).shown())


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}"""
    return json_response(thread_of(request).shown())


async def modify(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}"""
    thread = thread_of(request)
    given = check_params(await read_json(request), UPDATE_RULES, ())
    thread.metadata = given.get("metadata", thread.metadata)
    if "tool_resources" in given:
        thread.tool_resources = shown_resources(given["tool_resources"])
    return json_response(thread.shown())


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/threads/{id}"""
    thread = request.app[THREADS].remove(request.match_info["id"])
    for message in messages_of(request.app, thread):
        request.app[MESSAGES].remove(message.id)
    return json_response({"id": thread.id, "object": "thread.deleted", "deleted": True})


async def create_message(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}/messages"""
    thread = thread_of(request)
    body = await read_json(request)
    check_message(body)
    if thread.run_id is not None:
        message = f"Can't add messages to {thread.id} while a run {thread.run_id} is active."
        raise ApiError(400, message)
    return json_response(add_message(request.app, thread, body).shown())


async def list_messages(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}/messages"""
    found = messages_of(request.app, thread_of(request))
    run_id = request.query.get("run_id")
    if run_id is not None:
        found = [message for message in found if message.run_id == run_id]
    return json_response(page(request.query, found))


def _message(request: web.Request) -> Message:
    thread = thread_of(request)
    message = request.app[MESSAGES].get(request.match_info["message_id"])
    if message.thread_id != thread.id:
        raise ApiError(404, f"No message found with id '{message.id}'.")
    return message


async def retrieve_message(request: web.Request) -> web.StreamResponse:
    """GET /v1/threads/{id}/messages/{message_id}"""
    return json_response(_message(request).shown())


async def modify_message(request: web.Request) -> web.StreamResponse:
    """POST /v1/threads/{id}/messages/{message_id}"""
    message = _message(request)
    given = check_params(await read_json(request), _METADATA_RULES, ())
    message.metadata = given.get("metadata", message.metadata)
    return json_response(request.app[MESSAGES].changed(message).shown())


async def delete_message(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/threads/{id}/messages/{message_id}"""
    gone = request.app[MESSAGES].remove(_message(request).id)
    return json_response({"id": gone.id, "object": "thread.message.deleted", "deleted": True})


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/threads", beta(create)),
    ("GET", "/v1/threads/{id}", beta(retrieve)),
    ("POST", "/v1/threads/{id}", beta(modify)),
    ("DELETE", "/v1/threads/{id}", beta(delete)),
    ("POST", "/v1/threads/{id}/messages", beta(create_message)),
    ("GET", "/v1/threads/{id}/messages", beta(list_messages)),
    ("GET", "/v1/threads/{id}/messages/{message_id}", beta(retrieve_message)),
    ("POST", "/v1/threads/{id}/messages/{message_id}", beta(modify_message)),
    ("DELETE", "/v1/threads/{id}/messages/{message_id}", beta(delete_message)),
)
