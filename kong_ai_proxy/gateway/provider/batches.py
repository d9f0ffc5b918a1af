"""The stand-in provider's batches: they move on when they are asked for, and then really run.

`validating` becomes `in_progress` (or `failed`) at the first GET of a batch and `completed` at the
second, so that a poll loop has something to wait for and a test needs no clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from kong_ai_proxy.gateway.provider import chat, completions, embeddings, responses
from kong_ai_proxy.gateway.provider.blob import Blob
from kong_ai_proxy.gateway.provider.files import FILES, Files, expiry
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    json_response,
    new_id,
    now,
    raise_on_demand,
    read_json,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf, page

Answer = Callable[[Json], Json]

_ENDPOINTS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
)
RULES: Final[dict[str, Rule]] = {
    "completion_window": Rule("a string", options=("24h",)),
    "endpoint": Rule("a string", options=_ENDPOINTS),
    "input_file_id": Rule("a string"),
    "metadata": Rule("an object"),
    "output_expires_after": Rule("an object"),
}
_DAY: Final = 24 * 3600
_MOST_LINES: Final = 50_000  # "can contain up to 50,000 requests"
_MOST_ERRORS: Final = 100
_LONGEST_LINE: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class _Wrong:
    """What is wrong with a line of the input."""

    code: str
    message: str
    param: str | None = None

    def at(self, line: int | None) -> Json:
        return {"code": self.code, "message": self.message, "param": self.param, "line": line}


@dataclass
class Batch:
    """A batch and how far it is."""

    id: str
    asked: Json
    created_at: int
    status: str = "validating"
    times: dict[str, int] = field(default_factory=dict)  # of each status it has had
    errors: list[Json] = field(default_factory=list)
    model: str | None = None
    total: int = 0
    failed: int = 0
    completed: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0])  # given, made
    output_file_id: str | None = None
    error_file_id: str | None = None
    busy: bool = False

    def become(self, status: str) -> None:
        """Take another status, now."""
        self.status = status
        self.times[f"{status}_at"] = now()

    def shown(self) -> Json:
        stamps = ("in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled")
        given, made = self.tokens
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.asked["endpoint"],
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.asked["input_file_id"],
            "completion_window": self.asked["completion_window"],
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.created_at + _DAY,
            "expired_at": None,
            **{f"{status}_at": self.times.get(f"{status}_at") for status in stamps},
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "usage": {
                "input_tokens": given,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": made,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": given + made,
            },
            "metadata": self.asked.get("metadata"),
        }


BATCHES: Final = web.AppKey("batches", Shelf[Batch])


def set_up(app: web.Application) -> None:
    """Give the application its memory of batches."""
    app[BATCHES] = Shelf("No batch found with id '{id}'.")


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/batches"""
    required = ("input_file_id", "endpoint", "completion_window")
    body = check_params(await read_json(request), RULES, required)
    expiry(body.get("output_expires_after"), "output_expires_after")
    _check_file(request.app[FILES], body["input_file_id"])
    batch = request.app[BATCHES].add(Batch(new_id("batch_"), body, now()))
    return json_response(batch.shown())


def _check_file(files: Files, key: str) -> None:
    try:
        purpose = files.get(key).purpose
    except ApiError:
        raise ApiError(
            400, f"Invalid 'input_file_id': no such file '{key}'.", param="input_file_id"
        ) from None
    if purpose != "batch":
        raise ApiError(
            400,
            f"Invalid 'input_file_id': expected a file of purpose 'batch', but '{key}' has purpose "
            f"'{purpose}'.",
            param="input_file_id",
        )


async def listed(request: web.Request) -> web.StreamResponse:
    """GET /v1/batches"""
    kept = request.app[BATCHES]
    return json_response(page(request.query, list(kept)))


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/batches/{id}. Each one moves the batch on."""
    batch = request.app[BATCHES].get(request.match_info["id"])
    if not batch.busy:
        batch.busy = True  # who asks meanwhile sees how far it is
        try:
            await _move_on(batch, request.app)
        finally:
            batch.busy = False
    return json_response(batch.shown())


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST /v1/batches/{id}/cancel"""
    batch = request.app[BATCHES].get(request.match_info["id"])
    if batch.status not in ("validating", "in_progress", "finalizing"):
        message = f"Cannot cancel a batch with status '{batch.status}'."
        raise ApiError(409, message)
    batch.become("cancelling")
    return json_response(batch.shown())


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/batches", create),
    ("GET", "/v1/batches", listed),
    ("GET", "/v1/batches/{id}", retrieve),
    ("POST", "/v1/batches/{id}/cancel", cancel),
)


# -- running ---------------------------------------------------------------------------------------


async def _move_on(batch: Batch, app: web.Application) -> None:
    if batch.status == "validating":
        await _validate(batch, app[FILES])
    elif batch.status == "in_progress":
        await _run(batch, app)
    elif batch.status == "cancelling":
        batch.become("cancelled")


async def _validate(batch: Batch, files: Files) -> None:
    ids: set[str] = set()
    errors: list[Json] = []
    number = 0
    for number, line in _lines(batch, files):
        await asyncio.sleep(0)  # others are served between two lines
        wrong = _wrong(line, batch, ids) if isinstance(line, dict) else line
        if wrong is not None and len(errors) < _MOST_ERRORS:
            errors.append(wrong.at(number))
    if not number:
        errors.append(_Wrong("empty_file", "The input file has no lines.").at(None))
    if number > _MOST_LINES:
        message = f"The input file has more than {_MOST_LINES} lines."
        errors.append(_Wrong("too_many_tasks", message).at(None))
    if batch.status == "validating":  # and was not cancelled meanwhile
        batch.errors, batch.total = errors, 0 if errors else number
        batch.become("failed" if errors else "in_progress")


def _lines(batch: Batch, files: Files) -> Iterator[tuple[int, Json | _Wrong]]:
    """Each line with its number: what it holds, or why it cannot be read."""
    number = 0
    try:
        for line in files.get(batch.asked["input_file_id"]).blob.lines(_LONGEST_LINE):
            number += 1
            yield number, _parsed(line)
    except ApiError as error:
        yield 1, _Wrong("invalid_file", str(error))
    except ValueError as error:
        yield number + 1, _Wrong("invalid_json_line", f"This line cannot be read: {error}.")


def _parsed(line: bytes) -> Json | _Wrong:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _Wrong("invalid_json_line", "This line is not parseable as valid JSON.")
    if not isinstance(found, dict):
        return _Wrong("invalid_json_line", "This line is not a JSON object.")
    return found


def _wrong(line: Json, batch: Batch, ids: set[str]) -> _Wrong | None:
    """What is wrong with a line, if anything. Notes its id and the first model."""
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(line.get(name), kind) or not line[name]:
            return _Wrong("missing_required_parameter", f"Missing '{name}'.", name)
    if line["method"] != "POST":
        return _Wrong("invalid_method", f"Expected 'POST', got '{line['method']}'.", "method")
    if line["url"] != batch.asked["endpoint"]:
        message = f"The URL '{line['url']}' does not match the batch's endpoint."
        return _Wrong("mismatched_url", message, "url")
    if line["custom_id"] in ids:
        message = f"The custom_id '{line['custom_id']}' is used more than once."
        return _Wrong("duplicate_custom_id", message, "custom_id")
    ids.add(line["custom_id"])
    model = line["body"].get("model")
    if not isinstance(model, str):
        return _Wrong("missing_required_parameter", "Missing 'body.model'.", "body.model")
    batch.model = batch.model or model
    if model != batch.model:
        message = f"All lines must ask for one model: '{model}' is not '{batch.model}'."
        return _Wrong("mismatched_model", message, "body.model")
    return None


async def _run(batch: Batch, app: web.Application) -> None:
    """Answer every line into an output file and an error file."""
    batch.become("finalizing")
    answer = _answers(app)[batch.asked["endpoint"]]
    output, errors = Blob(), Blob()
    try:
        for _, line in _lines(batch, app[FILES]):
            await asyncio.sleep(0)
            status, body = _answered(answer, line)
            batch.completed += status == 200
            batch.failed += status != 200
            (output if status == 200 else errors).write(_output_line(line, status, body))
            given, made = _tokens(body.get("usage") or {})
            batch.tokens = [batch.tokens[0] + given, batch.tokens[1] + made]
    except BaseException:
        output.close()
        errors.close()
        batch.status, batch.completed, batch.failed, batch.tokens = "in_progress", 0, 0, [0, 0]
        raise
    batch.output_file_id = _kept(batch, app[FILES], output, "output")
    batch.error_file_id = _kept(batch, app[FILES], errors, "error")
    if batch.status == "finalizing":  # and was not cancelled meanwhile
        batch.become("completed")


def _answers(app: web.Application) -> dict[str, Answer]:
    """What answers each endpoint: the very functions that answer requests."""
    shelf = app[responses.RESPONSES]
    return {
        "/v1/chat/completions": chat.answer,
        "/v1/completions": completions.answer,
        "/v1/embeddings": embeddings.answer,
        "/v1/responses": lambda body: responses.answer(body, shelf),
    }


def _answered(answer: Answer, line: Any) -> tuple[int, Json]:
    try:
        if isinstance(line, _Wrong):  # the file was deleted meanwhile
            raise ApiError(400, line.message, code=line.code)
        body = line["body"]
        if body.get("stream"):
            raise ApiError(400, "Batches do not stream.", param="stream")
        raise_on_demand(body.get("model"))
        return 200, answer(body)
    except ApiError as error:
        return error.status, error.body


def _output_line(line: Any, status: int, body: Json) -> bytes:
    custom_id = line["custom_id"] if isinstance(line, dict) else None
    answered = {"status_code": status, "request_id": new_id("req_"), "body": body}
    out = {"id": new_id("batch_req_"), "custom_id": custom_id, "response": answered, "error": None}
    return orjson.dumps(out) + b"\n"


def _tokens(usage: Json) -> tuple[int, int]:
    """What was given and made, in the words of either API."""
    given = usage.get("input_tokens", usage.get("prompt_tokens"))
    made = usage.get("output_tokens", usage.get("completion_tokens"))
    return given or 0, made or 0


def _kept(batch: Batch, files: Files, blob: Blob, kind: str) -> str | None:
    """Make a file of it, unless there is nothing in it."""
    if not blob.size:
        blob.close()
        return None
    seconds = expiry(batch.asked.get("output_expires_after"), "output_expires_after")
    return files.add(f"{batch.id}_{kind}.jsonl", "batch_output", blob, seconds).id
