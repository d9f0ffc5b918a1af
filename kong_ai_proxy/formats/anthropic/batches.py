"""Message batches: https://platform.claude.com/docs/en/api/creating-message-batches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import orjson

from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.anthropic import errors
from kong_ai_proxy.formats.batches import BatchAnswer, BatchRequest, Counts
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import an_object, object_of, objects_of, text_of

_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COUNTS = ("canceled", "errored", "expired", "processing", "succeeded")
_UNDONE = {
    "canceled": ("batch_cancelled", "the batch was cancelled before this request was processed"),
    "expired": ("batch_expired", "the batch expired before this request was processed"),
}


class MessageBatch(NamedTuple):
    """What Anthropic tells of a batch."""

    name: str
    status: str
    """Under OpenAI's names."""
    created_at: int
    ended_at: int | None
    cancelling_at: int | None
    expires_at: int | None
    counts: Counts
    has_results: bool


def render_request(request: BatchRequest, body: Mapping[str, object]) -> bytes:
    """One element of `requests`, with its body in Anthropic's format. Raises FormatError."""
    if not _CUSTOM_ID.fullmatch(request.custom_id):
        raise FormatError("custom_id: Anthropic expects 1 to 64 letters, digits, '_' and '-'")
    return orjson.dumps({"custom_id": request.custom_id, "params": body})


def parse_batch(value: Mapping[str, object]) -> MessageBatch:
    """A batch. Raises FormatError."""
    name = text_of(value, "id")
    if not name or value.get("type") != "message_batch":
        raise FormatError("expected a message batch")
    counts = {each: _count(object_of(value, "request_counts"), each) for each in _COUNTS}
    ended, cancelled = _seconds(value, "ended_at"), _seconds(value, "cancel_initiated_at")
    return MessageBatch(
        name=name,
        status=_status(text_of(value, "processing_status"), counts, cancelled is not None),
        created_at=_seconds(value, "created_at") or 0,
        ended_at=ended,
        cancelling_at=cancelled,
        expires_at=_seconds(value, "expires_at"),
        counts=Counts(
            total=sum(counts.values()),
            completed=counts["succeeded"],
            failed=counts["errored"] + counts["expired"] + counts["canceled"],
        ),
        has_results=bool(text_of(value, "results_url")) and not value.get("archived_at"),
    )


def _status(told: str, counts: Mapping[str, int], is_cancelled: bool) -> str:
    """A batch that was to be cancelled, or that did not come to all its requests in time, has the
    answers that there are, with Anthropic as with OpenAI."""
    if told != "ended":
        return batches.CANCELLING if told == "canceling" else batches.IN_PROGRESS
    if is_cancelled:
        return batches.CANCELLED
    return batches.EXPIRED if counts["expired"] else batches.COMPLETED


def _count(value: Mapping[str, object], name: str) -> int:
    found = value.get(name)
    return found if type(found) is int and found >= 0 else 0


def _seconds(value: Mapping[str, object], name: str) -> int | None:
    """RFC 3339, as all times here."""
    try:
        return int(datetime.fromisoformat(text_of(value, name)).timestamp())
    except (ValueError, OverflowError):
        return None


def parse_batches(value: Mapping[str, object]) -> tuple[list[MessageBatch], bool]:
    """A page of batches, and whether more follow. Raises FormatError."""
    found = [parse_batch(each) for each in objects_of(value, "data")]
    return found, value.get("has_more") is True


def parse_answer(value: object) -> BatchAnswer:
    """A line of results: {"custom_id", "result"}. Raises FormatError."""
    line = an_object(value, "the line")
    name = text_of(line, "custom_id") or None
    result = an_object(line.get("result"), "result")
    kind = text_of(result, "type")
    if kind == "succeeded":
        return BatchAnswer(name, an_object(result.get("message"), "result.message"))
    if kind in _UNDONE:
        code, message = _UNDONE[kind]
        return BatchAnswer(name, error=ProviderError(message, code=code))
    if kind != "errored":
        raise FormatError("result.type: expected succeeded, errored, canceled or expired")
    error = errors.of_object(an_object(result.get("error"), "result.error"))
    return BatchAnswer(name, error=error._replace(message=error.message or "no reason was told"))
