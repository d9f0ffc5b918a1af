"""Bedrock's batch inference: jobs, and the lines of their files.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateModelInvocationJob.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html.

Chat is batched as Converse, which every model takes in the same format, embeddings as InvokeModel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.batches import BatchAnswer, BatchRequest, Counts, NewBatch
from kong_ai_proxy.formats.bedrock import errors
from kong_ai_proxy.formats.bedrock.times import iso, seconds
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import an_object, object_of, objects_of, text_of

CONVERSE = "Converse"
INVOKE = "InvokeModel"

MIN_HOURS, MAX_HOURS = 24, 168

STATUSES: Mapping[str, str] = {
    "Submitted": batches.VALIDATING,
    "Validating": batches.VALIDATING,
    "Scheduled": batches.IN_PROGRESS,
    "InProgress": batches.IN_PROGRESS,
    "Stopping": batches.CANCELLING,
    "Stopped": batches.CANCELLED,
    "Completed": batches.COMPLETED,
    "PartiallyCompleted": batches.COMPLETED,
    "Failed": batches.FAILED,
    "Expired": batches.EXPIRED,
}
"""What becomes of a job, in OpenAI's words."""

SETTINGS = ("jobName", "tags")
"""Members of a job that a client may set itself. In which network it runs, `vpcConfig`, is the
operator's business."""

HOURS = "timeoutDurationInHours"

JOB_ID = re.compile(r"[a-z0-9]{12}")

_COUNTS = ("totalRecordCount", "successRecordCount", "errorRecordCount")
_PLAIN = re.compile(r"[A-Ya-z0-9]+")
_ODD = re.compile(r"[^A-Ya-z0-9]")
_ESCAPED = re.compile(r"(?:[A-Ya-z0-9]|Z[0-9a-f]{2})+")


class Job(NamedTuple):
    """One model invocation job."""

    id: str
    """The last part of its ARN."""
    status: str
    """As OpenAI says it."""
    message: str = ""
    model: str = ""
    kind: str = INVOKE
    input_uri: str = ""
    output_uri: str = ""
    submitted: int = 0
    """Seconds since 1970; so are all times, 0 where they are not told."""
    modified: int = 0
    ended: int = 0
    expires: int = 0
    hours: int = MIN_HOURS
    counts: Counts | None = None
    processed: int = 0


class Jobs(NamedTuple):
    """A page of a list of jobs."""

    jobs: tuple[Job, ...]
    next_token: str


def hours_of(new: NewBatch) -> int:
    """The hours that a job may take: those of OpenAI's `completion_window`, or in their place
    Bedrock's own member. Raises FormatError for more or fewer than Bedrock has."""
    told = new.settings.get(HOURS)
    hours = new.hours if told is None else told
    if type(hours) is not int or not MIN_HOURS <= hours <= MAX_HOURS:
        if told is not None:
            raise FormatError(f"{HOURS}: expected a whole number from {MIN_HOURS} to {MAX_HOURS}")
        raise FormatError(f"completion_window: expected {MIN_HOURS}h to {MAX_HOURS}h")
    return hours


def render_job(
    *,
    name: str,
    token: str,
    model: str,
    role: str,
    kind: str,
    input_uri: str,
    output_uri: str,
    hours: int,
    settings: Mapping[str, object],
) -> bytes:
    """The body of CreateModelInvocationJob. Raises FormatError for members that are nested too
    deeply."""
    body = {
        "jobName": name,
        "clientRequestToken": token,
        "modelId": model,
        "roleArn": role,
        "modelInvocationType": kind,
        "inputDataConfig": {"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": input_uri}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": output_uri}},
        HOURS: hours,
        **{member: settings[member] for member in SETTINGS if member in settings},
    }
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise FormatError("the request is nested too deeply") from None


def parse_made(value: Mapping[str, object]) -> str:
    """The id of the job that CreateModelInvocationJob made. Raises FormatError."""
    return _job_id(value)


def parse_job(value: Mapping[str, object]) -> Job:
    """An answer of GetModelInvocationJob, or one of a list. Raises FormatError."""
    numbers = {name: _number(value, name) for name in _COUNTS}
    return Job(
        id=_job_id(value),
        # A status that is not known must not hide a whole list.
        status=STATUSES.get(text_of(value, "status"), batches.IN_PROGRESS),
        message=text_of(value, "message"),
        model=text_of(value, "modelId"),
        kind=text_of(value, "modelInvocationType") or INVOKE,
        input_uri=_uri(value, "inputDataConfig", "s3InputDataConfig"),
        output_uri=_uri(value, "outputDataConfig", "s3OutputDataConfig"),
        submitted=seconds(text_of(value, "submitTime")),
        modified=seconds(text_of(value, "lastModifiedTime")),
        ended=seconds(text_of(value, "endTime")),
        expires=seconds(text_of(value, "jobExpirationTime")),
        hours=_number(value, HOURS) or MIN_HOURS,
        counts=Counts(*numbers.values()) if "totalRecordCount" in value else None,
        processed=_number(value, "processedRecordCount"),
    )


def parse_jobs(value: Mapping[str, object]) -> Jobs:
    """An answer of ListModelInvocationJobs. Raises FormatError."""
    found = objects_of(value, "invocationJobSummaries")
    return Jobs(tuple(parse_job(each) for each in found), text_of(value, "nextToken"))


def jobs_query(limit: int, *, before: int = 0, token: str = "") -> dict[str, str]:
    """The query of ListModelInvocationJobs: the newest first, of those that were submitted before
    a point in time (seconds since 1970; 0 for all)."""
    query = {"maxResults": str(limit), "sortBy": "CreationTime", "sortOrder": "Descending"}
    if before:
        query["submitTimeBefore"] = iso(before)
    return {**query, "nextToken": token} if token else query


def _job_id(value: Mapping[str, object]) -> str:
    found = text_of(value, "jobArn").rpartition("/")[2]
    if not JOB_ID.fullmatch(found):
        raise FormatError("jobArn: expected the ARN of a model invocation job")
    return found


def _number(value: Mapping[str, object], name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0


def _uri(value: Mapping[str, object], config: str, kind: str) -> str:
    return text_of(object_of(object_of(value, config), kind), "s3Uri")


# ---- lines


def record_id(custom_id: str) -> str:
    """What Bedrock gets for a client's id: letters and digits, as it demands. "Z" and all other
    characters are written as Z and two hexadecimal digits for each byte."""
    if _PLAIN.fullmatch(custom_id):
        return custom_id
    return _ODD.sub(lambda odd: "".join(f"Z{each:02x}" for each in odd[0].encode()), custom_id)


def custom_id(record: str) -> str:
    """The client's id again. A record that was not named here keeps its name."""
    if not _ESCAPED.fullmatch(record):
        return record
    plain = re.sub("Z([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), record)
    try:
        return plain.encode("latin-1").decode()
    except UnicodeDecodeError:
        return record


def render_line(request: BatchRequest, body: Mapping[str, object]) -> bytes:
    """One line of a job's input."""
    line = {"recordId": record_id(request.custom_id), "modelInput": body}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def parse_line(value: object) -> BatchAnswer:
    """One line of a job's output, parsed JSON. Raises FormatError."""
    line = an_object(value, "the line")
    record = text_of(line, "recordId")
    told = custom_id(record) if record else None
    error = object_of(line, "error")
    if error:
        return BatchAnswer(told, error=_error(error), id=record)
    return BatchAnswer(told, line.get("modelOutput"), id=record)


def _error(error: Mapping[str, object]) -> ProviderError:
    status = _number(error, "errorCode")
    message = text_of(error, "errorMessage") or "the request failed"
    if not 400 <= status <= 599:
        return ProviderError(message, text_of(error, "errorCode"))
    return errors.parse(status, orjson.dumps({"message": message}))
