"""Batch prediction jobs of Vertex AI, whose requests and answers are files in Cloud Storage:
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage
and .../reference/rest/v1/projects.locations.batchPredictionJobs.

A line of output repeats the request, without telling which one it was, and the lines are in any
order. What the API lets a request carry along are its labels
(https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/projects.locations.endpoints/generateContent,
`labels`): the client's custom_id goes and comes in them, as it is where a label may be so, else in
base32. Google shows labels in the billing report too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.batches import BatchAnswer, BatchRequest, Counts
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import (
    an_object,
    object_of,
    objects_of,
    parsed,
    text_of,
)
from kong_ai_proxy.formats.gemini.batches import ENDED, Job, failure, faults, status_of
from kong_ai_proxy.formats.gemini.times import number, seconds

SETTINGS = ("labels",)
"""Members of a job that a client may set itself."""

# https://cloud.google.com/resource-manager/docs/labels-overview#requirements: 64 labels, each value
# up to 63 characters. The longest custom_id of OpenAI's, 512 characters, takes 53 of them.
_PLAIN = re.compile(r"[a-z0-9_-]{1,63}")
_LABEL = "custom-id"
_PIECE = 63
_PIECES = 64

_STATUS = re.compile(r"[A-Za-z ]{1,40}: *(?=\{)")


# ---- jobs


def render_create(
    display_name: str, model: str, source: str, target: str, settings: Mapping[str, object]
) -> dict[str, object]:
    """The body that makes a job. `source` is a gs:// URI, `target` the beginning of one; `settings`
    are further members."""
    return {
        **settings,
        "displayName": display_name,
        "model": model,
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [source]}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": target},
        },
    }


def parse_job(value: Mapping[str, object]) -> Job:
    """A job. Raises FormatError."""
    name = text_of(value, "name").rpartition("/batchPredictionJobs/")[2]
    if not name:
        raise FormatError("name: expected projects/.../batchPredictionJobs/...")
    status = status_of(text_of(value, "state"))
    ended = status in ENDED
    return Job(
        name=name,
        display_name=text_of(value, "displayName"),
        status=status,
        model=text_of(value, "model").removeprefix("publishers/google/models/"),
        source=_source(value),
        destination=_output(value) if ended else "",
        created_at=seconds(value, "createTime") or 0,
        started_at=seconds(value, "startTime"),
        ended_at=(seconds(value, "endTime") or seconds(value, "updateTime")) if ended else None,
        counts=_counts(object_of(value, "completionStats")),
        faults=faults(value),
        target=text_of(
            object_of(object_of(value, "outputConfig"), "gcsDestination"), "outputUriPrefix"
        ),
    )


def parse_jobs(value: Mapping[str, object]) -> tuple[list[Job], str]:
    """A page of jobs, and the token of the next one; "" for the last. Raises FormatError."""
    jobs = [parse_job(each) for each in objects_of(value, "batchPredictionJobs")]
    return jobs, text_of(value, "nextPageToken")


def _source(value: Mapping[str, object]) -> str:
    uris = object_of(object_of(value, "inputConfig"), "gcsSource").get("uris")
    found = uris[0] if isinstance(uris, list) and uris else ""
    return found if isinstance(found, str) else ""


def _output(value: Mapping[str, object]) -> str:
    """The file of the answers, of which `outputInfo` names the directory."""
    directory = text_of(object_of(value, "outputInfo"), "gcsOutputDirectory").rstrip("/")
    return f"{directory}/predictions.jsonl" if directory else ""


def _counts(stats: Mapping[str, object]) -> Counts | None:
    if not stats:
        return None
    done, failed = number(stats, "successfulCount") or 0, number(stats, "failedCount") or 0
    waiting = number(stats, "incompleteCount") or 0  # -1: not known
    return Counts(done + failed + max(waiting, 0), done, failed)


# ---- lines


def render_request(request: BatchRequest, body: Mapping[str, object]) -> bytes:
    """A line of input. Raises FormatError for labels of the client's that are none."""
    labels = an_object(body.get("labels") or {}, "body.labels")
    line = {"request": {**body, "labels": {**labels, **_labels(request.custom_id)}}}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _labels(custom_id: str) -> dict[str, str]:
    if _PLAIN.fullmatch(custom_id):
        return {_LABEL: custom_id}
    text = base64.b32encode(custom_id.encode()).decode().rstrip("=").lower()
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    return {f"{_LABEL}-{index}": piece for index, piece in enumerate(pieces)}


def parse_answer(value: object) -> BatchAnswer:
    """A line of output: {"request", "response", "status", "processed_time"}. Raises FormatError."""
    line = an_object(value, "the line")
    custom_id = _custom_id(line)
    status = line.get("status")
    if isinstance(status, str) and status:
        return BatchAnswer(custom_id, error=_failure(status))
    if not line.get("response"):
        return BatchAnswer(custom_id, error=ProviderError("the provider gave no answer"))
    return BatchAnswer(custom_id, line["response"])


def _custom_id(line: Mapping[str, object]) -> str | None:
    labels = object_of(object_of(line, "request"), "labels")
    plain = labels.get(_LABEL)
    if isinstance(plain, str):
        return plain
    pieces = [text_of(labels, f"{_LABEL}-{index}") for index in range(_PIECES)]
    text = "".join(pieces).upper()
    try:
        found = base64.b32decode(text + "=" * (-len(text) % 8)).decode()
    except (binascii.Error, ValueError):
        return None
    return found or None


def _failure(status: str) -> ProviderError:
    """An error that a line tells: a name and JSON, or plain text."""
    told = parsed(_STATUS.sub("", status, count=1).encode("utf-8", "replace"))
    error = told.get("error") if isinstance(told, dict) else None
    if isinstance(error, dict):
        return failure(error)
    return ProviderError(status)
