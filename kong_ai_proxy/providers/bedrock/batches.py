"""Batches at Bedrock: model invocation jobs, whose files lie in the configured bucket.

Jobs that read nothing below the configured prefix are nobody's business here: they are neither
listed nor found nor stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.batches import Batch, BatchFault
from kong_ai_proxy.formats.bedrock import batches as bedrock_batches
from kong_ai_proxy.formats.bedrock import errors
from kong_ai_proxy.formats.bedrock.batches import CONVERSE, INVOKE, JOB_ID, Job
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.bedrock.bucket import (
    EMBEDDINGS,
    Bucket,
    bucket,
    known_key,
    output_folder,
    output_key,
    parse_key,
)
from kong_ai_proxy.providers.bedrock.files import MODEL_HEADER, URLS, head
from kong_ai_proxy.providers.bedrock.files import made as made_file
from kong_ai_proxy.providers.bedrock.output import check_signs
from kong_ai_proxy.providers.bedrock.paths import CONTROL, elsewhere
from kong_ai_proxy.providers.files import (
    BATCH_OPERATIONS,
    batch_model,
    file_id,
    file_name,
    no_batch,
)
from kong_ai_proxy.providers.flow import (
    Flow,
    ProviderFailed,
    Reply,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    not_there,
    parsed,
    sent,
    unusable,
)

_START = "batch_"
_JOBS = "/model-invocation-job"
_NOT_FOUND = 404
_ENDED = frozenset({batches.COMPLETED, batches.FAILED, batches.EXPIRED, batches.CANCELLED})
_PAGE = 100
_MAX_PAGES = 20
_ROLES = ("role_arn", "roleArn")
_CARRIED = frozenset({"model", bedrock_batches.HOURS, *bedrock_batches.SETTINGS})

_Read = TypeVar("_Read")


def _run(wanted: Wanted) -> Steps:
    place = bucket(wanted.options)
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _create(wanted, place))
        case "GET", ():
            return (yield from _list(wanted, place))
        case "GET", (told,):
            job, key = yield from _job(wanted, place, told)
            return Result(openai_batches.render_batch(_batch(job, key, place)))
        case "POST", (told, "cancel"):
            return (yield from _cancel(wanted, place, told))
    raise not_there(wanted, *BATCH_OPERATIONS)


def _made(collection: str, told: str, options: ModelOptions) -> bool:
    """See Flow.made."""
    if collection == "files":
        return made_file(collection, told, options)
    return told.startswith(_START) and bool(JOB_ID.fullmatch(told.removeprefix(_START)))


BATCHES = Flow(_run, made=_made)


# ---- making one


def _create(wanted: Wanted, place: Bucket) -> Steps:
    check_signs(wanted)
    new = openai_batches.parse_create(wanted.body)
    key, kind = _input(new)
    role = _role(wanted.options, new.settings)
    hours = bedrock_batches.hours_of(new)
    about = yield from head(place, key, new.input_file_id)
    model = batch_model(wanted, _own_model(new) or about.headers.get(MODEL_HEADER, ""))
    if not model:
        raise FormatError("model: expected it in the request or its file, or a configured one")
    body = bedrock_batches.render_job(
        name=f"batch-{wanted.id}",
        token=wanted.id,
        model=model,
        role=role,
        kind=INVOKE if kind == EMBEDDINGS else CONVERSE,
        input_uri=place.uri(key),
        output_uri=place.uri(output_folder(key)),
        hours=hours,
        settings=new.settings,
    )
    made = yield from sent(_control(wanted, "POST", _JOBS, body=body), errors.parse)
    batch = Batch(
        id=_START + _read(bedrock_batches.parse_made, made),
        endpoint=new.endpoint,
        input_file_id=new.input_file_id,
        status=batches.VALIDATING,
        created_at=int(wanted.now),
        hours=hours,
        model=model,
        expires_at=int(wanted.now) + hours * 3600,
    )
    return Result(openai_batches.render_batch(batch), dropped=tuple(_dropped(wanted.options, new)))


def _dropped(options: ModelOptions, new: batches.NewBatch) -> Iterator[str]:
    carried = _CARRIED if options.bedrock.batch_role_arn else _CARRIED.union(_ROLES)
    yield from (name for name in new.settings if name not in carried)
    if new.metadata is not None:
        yield "metadata"


def _input(new: batches.NewBatch) -> tuple[str, str]:
    """The key of the file, and its kind."""
    key = file_name(new.input_file_id)
    known = known_key(key, new.input_file_id)
    if known.is_output or known.kind not in URLS:
        raise FormatError("input_file_id: expected the id of a file with the purpose batch")
    if new.endpoint != URLS[known.kind]:
        raise FormatError(f"endpoint: expected {URLS[known.kind]}, the url of the file's requests")
    return key, known.kind


def _own_model(new: batches.NewBatch) -> str:
    """The member that OpenAI has not: a file may be for a model that its lines do not name."""
    return a_text(new.settings.get("model", ""), "model")


def _role(options: ModelOptions, settings: Mapping[str, object]) -> str:
    given = next((settings[name] for name in _ROLES if name in settings), "")
    role = options.bedrock.batch_role_arn or a_text(given, "role_arn")
    if not role:
        text = (
            "model.options.bedrock.batch_role_arn: expected the ARN of the role that batches run "
            "as, or role_arn in the request"
        )
        raise ProviderFailed(ProviderError(text, status=500))
    return role


# ---- what is there


def _job(wanted: Wanted, place: Bucket, told: str) -> Generator[Step, Any, tuple[Job, str]]:
    """A job and the key of its input. Raises ProviderFailed, 404 where there is none."""
    name = told.removeprefix(_START)
    if not told.startswith(_START) or not JOB_ID.fullmatch(name):
        raise no_batch(told)

    def parse(status: int, body: bytes) -> ProviderError:
        return no_batch(told).error if status == _NOT_FOUND else errors.parse(status, body)

    reply = yield from sent(_control(wanted, "GET", f"{_JOBS}/{name}"), parse)
    job = _read(bedrock_batches.parse_job, reply)
    key = _own_input(job, place)
    if key is None:
        raise no_batch(told)
    return job, key


def _own_input(job: Job, place: Bucket) -> str | None:
    """The key of what the job reads, where it is an uploaded batch."""
    key = place.key_of(job.input_uri)
    known = parse_key(key) if key is not None else None
    is_batch = known is not None and not known.is_output and known.kind in URLS
    return key if is_batch else None


def _cancel(wanted: Wanted, place: Bucket, told: str) -> Steps:
    job, key = yield from _job(wanted, place, told)
    yield from sent(_control(wanted, "POST", f"{_JOBS}/{job.id}/stop"), errors.parse)
    stopping = job._replace(status=batches.CANCELLING, modified=int(wanted.now))
    return Result(openai_batches.render_batch(_batch(stopping, key, place)))


def _list(wanted: Wanted, place: Bucket) -> Steps:
    """Bedrock counts its pages by tokens; a client names the last batch it knows, so the list
    begins at the second when that was made."""
    query = openai_files.parse_list(
        wanted.query, most=openai_batches.MAX_LISTED, usual=openai_batches.USUALLY_LISTED
    )
    last: Job | None = None
    if query.after:
        last, _ = yield from _job(wanted, place, query.after)
    is_found = last is None
    before = last.submitted + 1 if last else 0
    found: list[Batch] = []
    token = ""
    for _ in range(_MAX_PAGES):
        asked_for = bedrock_batches.jobs_query(_PAGE, before=before, token=token)
        send = _control(wanted, "GET", f"{_JOBS}s", asked_for)
        page = _read(bedrock_batches.parse_jobs, (yield from sent(send, errors.parse)))
        for job in page.jobs:
            key = _own_input(job, place)
            if is_found and key is not None:
                found.append(_batch(job, key, place))
            is_found = is_found or (last is not None and job.id == last.id)
        token = page.next_token
        if not token or len(found) > query.limit:
            break
    has_more = len(found) > query.limit or bool(token)
    listed = openai_batches.render_batches(found[: query.limit], has_more=has_more)
    return Result(listed, dropped=query.dropped(kept="desc"))


def _batch(job: Job, key: str, place: Bucket) -> Batch:
    known = parse_key(key)
    assert known is not None
    is_over = job.status in _ENDED
    failed = job.message and job.status in (batches.FAILED, batches.EXPIRED)
    return Batch(
        id=_START + job.id,
        endpoint=URLS[known.kind],
        input_file_id=file_id(key),
        status=job.status,
        created_at=job.submitted,
        hours=job.hours,
        model=job.model,
        output_file_id=_output(job, key, place),
        ended_at=(job.ended or job.modified or None) if is_over else None,
        cancelling_at=(job.modified or None) if job.status == batches.CANCELLING else None,
        expires_at=job.expires or job.submitted + job.hours * 3600,
        counts=job.counts,
        faults=(BatchFault(job.message, "job_failed"),) if failed else (),
    )


def _output(job: Job, key: str, place: Bucket) -> str | None:
    """Of a job that did not complete there is what it had done."""
    is_there = job.status == batches.COMPLETED or (job.status in _ENDED and job.processed > 0)
    is_ours = job.output_uri.rstrip("/") == place.uri(output_folder(key)).rstrip("/")
    return file_id(output_key(key, job.id)) if is_there and is_ours else None


# ---- requests


def _control(
    wanted: Wanted,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Send:
    return Send(
        method,
        path,
        query=urlencode(query or {}, quote_via=quote, safe="-_.~"),
        body=body,
        base_url=elsewhere(CONTROL, wanted.options),
    )


def _read(parse: Callable[[Mapping[str, object]], _Read], reply: Reply) -> _Read:
    try:
        return parse(parsed(reply))
    except FormatError as wrong:
        raise unusable(str(wrong)) from None
