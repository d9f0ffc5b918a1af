"""Batches in OpenAI's format, and the lines of their files:
https://platform.openai.com/docs/api-reference/batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import orjson

from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.batches import Batch, BatchFault, BatchRequest, NewBatch
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_object, wrong
from kong_ai_proxy.formats.openai.files import page

CHAT_URL = "/v1/chat/completions"
EMBEDDINGS_URL = "/v1/embeddings"

MAX_LISTED = 100
USUALLY_LISTED = 20

MAX_CUSTOM_ID = 512
LINE = 'a JSON object {"custom_id": ..., "method": "POST", "url": ..., "body": {...}}'
_MEMBERS = ("custom_id", "method", "url", "body")
_HOURS = re.compile(r"([0-9]{1,3})h")
_ENDED = {
    batches.FAILED: "failed_at",
    batches.COMPLETED: "completed_at",
    batches.EXPIRED: "expired_at",
    batches.CANCELLED: "cancelled_at",
}
_OWN = frozenset({"input_file_id", "endpoint", "completion_window", "metadata"})
_MAX_METADATA, _MAX_KEY, _MAX_VALUE = 16, 64, 512


def parse_create(body: Mapping[str, object]) -> NewBatch:
    """A client's request for a batch. Raises FormatError."""
    given = {name: value for name, value in body.items() if value is not None}
    hours = _HOURS.fullmatch(a_text(given.get("completion_window", ""), "completion_window"))
    if not hours or not int(hours[1]):
        wrong("completion_window", "a number of hours such as 24h")
    return NewBatch(
        input_file_id=_named(given, "input_file_id"),
        endpoint=_named(given, "endpoint"),
        hours=int(hours[1]),
        metadata=_metadata(given["metadata"]) if "metadata" in given else None,
        settings={name: value for name, value in given.items() if name not in _OWN},
    )


def _named(body: Mapping[str, object], name: str) -> str:
    value = a_text(body.get(name), name)
    return value or wrong(name, "a string that is not empty")


def _metadata(value: object) -> Mapping[str, str]:
    given = an_object(value, "metadata")
    if len(given) > _MAX_METADATA or any(len(name) > _MAX_KEY for name in given):
        wrong("metadata", f"at most {_MAX_METADATA} members with names up to {_MAX_KEY} long")
    for name, each in given.items():
        if len(a_text(each, f"metadata.{name}")) > _MAX_VALUE:
            wrong(f"metadata.{name}", f"at most {_MAX_VALUE} characters")
    return {name: str(each) for name, each in given.items()}


def render_batch(batch: Batch) -> dict[str, object]:
    """A batch object."""
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        **({"model": batch.model} if batch.model else {}),
        "errors": _faults(batch.faults),
        "input_file_id": batch.input_file_id,
        "completion_window": f"{batch.hours}h",
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": batch.in_progress_at,
        "expires_at": batch.expires_at,
        "finalizing_at": batch.finalizing_at,
        **dict.fromkeys(_ENDED.values()),
        **({_ENDED[batch.status]: batch.ended_at} if batch.status in _ENDED else {}),
        "cancelling_at": batch.cancelling_at,
        "request_counts": batch.counts._asdict() if batch.counts else None,
        "metadata": batch.metadata,
    }


def _faults(faults: tuple[BatchFault, ...]) -> dict[str, object] | None:
    if not faults:
        return None
    data = [
        {"code": each.code or None, "message": each.message, "param": None, "line": each.line}
        for each in faults
    ]
    return {"object": "list", "data": data}


def render_batches(found: Iterable[Batch], *, has_more: bool) -> dict[str, object]:
    """A page of a list of batches."""
    return page([render_batch(batch) for batch in found], has_more=has_more)


# ---- lines: https://platform.openai.com/docs/api-reference/batch/request-input


def is_request(line: bytes) -> bool:
    """Whether a line looks like one of a batch's input, right or wrong."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and all(name in value for name in _MEMBERS)


def parse_request(line: bytes) -> BatchRequest:
    """One line of a batch's input. Raises FormatError."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"expected {LINE}: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"expected {LINE}")
    custom_id = a_text(value.get("custom_id"), "custom_id")
    if not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        wrong("custom_id", f"1 to {MAX_CUSTOM_ID} characters")
    if value.get("method") != "POST":
        wrong("method", '"POST"')
    body = an_object(value.get("body"), "body")
    if body.get("stream"):
        wrong("body.stream", "no stream in a batch")
    return BatchRequest(custom_id, a_text(value.get("url"), "url"), body)


def render_answer(name: str, custom_id: str | None, status: int, body: object) -> bytes:
    """One line of a batch's output, whose id is `name`: an answer of any status."""
    response = {"status_code": status, "request_id": name, "body": body}
    return _line(name, custom_id, response, None)


def render_failure(name: str, custom_id: str | None, error: ProviderError) -> bytes:
    """One line of a batch's output: a request that got no answer."""
    failure = {"code": error.code or error.type or "server_error", "message": error.message}
    return _line(name, custom_id, None, failure)


def _line(name: str, custom_id: str | None, response: object, error: object) -> bytes:
    line = {"id": name, "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
