"""Batches of the Gemini API: https://ai.google.dev/gemini-api/docs/batch-api and
https://ai.google.dev/api/batch-api.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.batches import BatchAnswer, BatchFault, BatchRequest, Counts
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import (
    an_array,
    an_object,
    object_of,
    objects_of,
    text_of,
)
from kong_ai_proxy.formats.gemini.times import number, seconds

STATUSES: Mapping[str, str] = {
    "QUEUED": batches.VALIDATING,
    "PENDING": batches.VALIDATING,
    "RUNNING": batches.IN_PROGRESS,
    "UPDATING": batches.IN_PROGRESS,
    "PAUSED": batches.IN_PROGRESS,
    "SUCCEEDED": batches.COMPLETED,
    "PARTIALLY_SUCCEEDED": batches.COMPLETED,
    "FAILED": batches.FAILED,
    "CANCELLING": batches.CANCELLING,
    "CANCELLED": batches.CANCELLED,
    "EXPIRED": batches.EXPIRED,
}
"""Google's states, which begin with BATCH_STATE_ or JOB_STATE_, under OpenAI's names."""

SETTINGS = ("priority",)
"""Members of a batch that a client may set itself: https://ai.google.dev/api/batch-api."""

ENDED = frozenset({batches.COMPLETED, batches.FAILED, batches.CANCELLED, batches.EXPIRED})

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto: what the errors of
# single requests are numbered with, and the HTTP statuses that it gives for them.
_HTTP = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}
_FIRST_HTTP = 100


class Job(NamedTuple):
    """What Google tells of a batch, whichever of its APIs has it."""

    name: str
    """The last segment of it."""
    display_name: str
    status: str
    """Under OpenAI's names."""
    model: str
    """Without models/, but with a publisher that is not Google."""
    source: str
    """The file, or the first object, that the requests are in; "" where they are told inline."""
    destination: str
    """Where the answers are; "" where they are not there."""
    created_at: int
    started_at: int | None
    ended_at: int | None
    counts: Counts | None
    faults: tuple[BatchFault, ...]
    target: str = ""
    """Of Vertex AI: what the URI of everything that it writes begins with."""


def status_of(state: str) -> str:
    """OpenAI's name for a state; of one that is not known, "validating"."""
    return STATUSES.get(state.partition("_STATE_")[2], batches.VALIDATING)


# ---- jobs


def render_create(
    display_name: str, file_name: str, settings: Mapping[str, object]
) -> dict[str, object]:
    """The body of batchGenerateContent and asyncBatchEmbedContent; `settings` are further members
    of the batch."""
    source = {"fileName": f"files/{file_name}"}
    return {"batch": {**settings, "displayName": display_name, "inputConfig": source}}


def parse_job(value: Mapping[str, object]) -> Job:
    """A batch, which is an operation. Raises FormatError."""
    prefix, _, name = text_of(value, "name").partition("/")
    if prefix != "batches" or not name:
        raise FormatError("name: expected batches/...")
    told = object_of(value, "metadata")
    output = object_of(told, "output") or object_of(value, "response")
    status = status_of(text_of(told, "state"))
    ended = status in ENDED
    return Job(
        name=name,
        display_name=text_of(told, "displayName"),
        status=status,
        model=text_of(told, "model").removeprefix("models/"),
        source=_file(object_of(told, "inputConfig"), "fileName"),
        destination=_file(output, "responsesFile") if ended else "",
        created_at=seconds(told, "createTime") or 0,
        started_at=None,
        ended_at=(seconds(told, "endTime") or seconds(told, "updateTime")) if ended else None,
        counts=_counts(object_of(told, "batchStats")),
        faults=faults(value),
    )


def parse_jobs(value: Mapping[str, object]) -> tuple[list[Job], str]:
    """A page of batches, and the token of the next one; "" for the last. Raises FormatError."""
    jobs = [parse_job(each) for each in objects_of(value, "operations")]
    return jobs, text_of(value, "nextPageToken")


def faults(value: Mapping[str, object]) -> tuple[BatchFault, ...]:
    """Why a job has failed, as its member `error` tells."""
    error = object_of(value, "error")
    if not error:
        return ()
    code = number(error, "code")
    return (BatchFault(text_of(error, "message") or "failed", str(code) if code else ""),)


def _file(value: Mapping[str, object], member: str) -> str:
    return text_of(value, member).removeprefix("files/")


def _counts(stats: Mapping[str, object]) -> Counts | None:
    total = number(stats, "requestCount")
    if total is None:
        return None
    done, failed = number(stats, "successfulRequestCount"), number(stats, "failedRequestCount")
    return Counts(total, done or 0, failed or 0)


# ---- lines


def render_request(request: BatchRequest, body: Mapping[str, object]) -> bytes:
    """A line of input. Of a request for embeddings, which is batchEmbedContents' own, the one that
    it holds. Raises FormatError where it holds several."""
    if "requests" in body:
        asked = an_array(body["requests"], "requests")
        if len(asked) != 1:
            raise FormatError("body.input: expected one text to a request of a batch")
        body = an_object(asked[0], "requests[0]")
    line = {"key": request.custom_id, "request": body}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def parse_answer(value: object) -> BatchAnswer:
    """A line of output: {"key", "response"}, or "error" in its place. Raises FormatError."""
    line = an_object(value, "the line")
    key = line.get("key")
    custom_id = key if isinstance(key, str) else None
    error = line.get("error") or line.get("status")
    if isinstance(error, dict):
        return BatchAnswer(custom_id, error=failure(error))
    return BatchAnswer(custom_id, line.get("response"), id=text_of(line, "id"))


def failure(error: Mapping[str, object]) -> ProviderError:
    """What became of one request, as google.rpc.Status or an HTTP error tells it."""
    code = number(error, "code") or 0
    status = code if code >= _FIRST_HTTP else _HTTP.get(code, 500)
    message = text_of(error, "message") or "the provider told no reason"
    return ProviderError(message, text_of(error, "status"), status)
