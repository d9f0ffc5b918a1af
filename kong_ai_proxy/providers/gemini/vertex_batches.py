"""Batches of Vertex AI for clients of OpenAI's: batch prediction jobs with files in Cloud Storage,
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage.

The input is a file that was uploaded by the route of vertex_files, or any gs:// URI with lines in
Vertex AI's own format, as the API itself takes them: what the credentials may read, clients may
have read. The answers are written beside it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from urllib.parse import urlencode

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import gemini
from kong_ai_proxy.formats.batches import Batch
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import vertex_batches
from kong_ai_proxy.formats.gemini.batches import Job
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.providers.files import BATCH_OPERATIONS, batch_model, leads_to, no_batch
from kong_ai_proxy.providers.flow import (
    Flow,
    ProviderFailed,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    not_there,
    sent,
)
from kong_ai_proxy.providers.gemini import jobs as google_batches
from kong_ai_proxy.providers.gemini import pages as google_pages
from kong_ai_proxy.providers.gemini.paths import located, publisher
from kong_ai_proxy.providers.gemini.vertex_storage import (
    KINDS,
    Location,
    location,
    made,
    object_id,
    output_prefix,
)

_ERRORS = gemini.GENERATE.parse_error
_URLS = {kind: url for url, kind in KINDS.items()}


def _run(wanted: Wanted) -> Steps:
    jobs = f"{located(wanted.options)}/batchPredictionJobs"
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _create(wanted, jobs))
        case "GET", ():
            return (yield from _list(wanted, jobs))
        case "GET", (told,):
            job = yield from _job(f"{jobs}/{google_batches.name_of(told)}")
            return Result(openai_batches.render_batch(_batch(job)))
        case "POST", (told, "cancel"):
            path = f"{jobs}/{google_batches.name_of(told)}"
            yield from sent(Send("POST", f"{path}:cancel", body=b"{}"), _ERRORS)
            found = google_batches.cancelling(_batch((yield from _job(path))))
            return Result(openai_batches.render_batch(found))
        case "DELETE", (told,):
            path = f"{jobs}/{google_batches.name_of(told)}"
            yield from sent(Send("DELETE", path), _ERRORS)
            return Result(google_batches.deleted(told))
    raise not_there(wanted, *BATCH_OPERATIONS, "DELETE /batches/{id}")


def _made(collection: str, told: str, _: ModelOptions) -> bool:
    """See Flow.made."""
    return _leads(told) if collection == "files" else google_batches.leads(told)


_leads = leads_to(location)
BATCHES = Flow(_run, made=_made)


def _create(wanted: Wanted, jobs: str) -> Steps:
    asked = openai_batches.parse_create(wanted.body)
    kind = KINDS.get(asked.endpoint)
    if kind is None:
        raise FormatError(f"endpoint: expected {' or '.join(KINDS)}")
    place = location(asked.input_file_id)
    told = made(place.name)
    if told.purpose == "batch" and told.kind != kind:
        raise FormatError("endpoint: the requests of the input file are for another one")
    settings, dropped = google_batches.settings(asked, vertex_batches.SETTINGS)
    body = vertex_batches.render_create(
        f"batch-{wanted.id}",
        _model(batch_model(wanted, told.model, f"google/{told.model}")),
        place.uri,
        output_prefix(place, kind, wanted.id),
        settings,
    )
    reply = yield from sent(Send("POST", jobs, body=orjson.dumps(body)), _ERRORS)
    batch = _batch(google_pages.read(vertex_batches.parse_job, reply))
    return Result(openai_batches.render_batch(batch), dropped=dropped)


def _model(model: str) -> str:
    owner, name = publisher(model or google_batches.no_model())
    if owner != "google":
        raise FormatError(f"model: expected one of Google's own, got {name[:100]!r}")
    return f"publishers/google/models/{name}"


def _job(path: str) -> Generator[Step, Any, Job]:
    reply = yield from sent(Send("GET", path), _ERRORS)
    return google_pages.read(vertex_batches.parse_job, reply)


def _list(wanted: Wanted, jobs: str) -> Steps:
    query = google_batches.list_query(wanted)

    def fetch(token: str) -> Generator[Step, Any, tuple[list[Batch], str]]:
        told = {"pageSize": str(google_pages.PAGE), **({"pageToken": token} if token else {})}
        reply = yield from sent(Send("GET", jobs, urlencode(told)), _ERRORS)
        found, following = google_pages.read(vertex_batches.parse_jobs, reply)
        return [_batch(each) for each in found], following

    found, has_more = yield from google_pages.listed(query, fetch, no_batch)
    page = openai_batches.render_batches(found, has_more=has_more)
    return Result(page, dropped=query.dropped())


def _batch(job: Job) -> Batch:
    """Of a job that was not made here, neither the input nor what it asks need be known."""
    source, output = _location(job.source), _location(job.destination)
    kind = made(f"{job.target}/predictions.jsonl").kind or "chat"
    return google_batches.batch(
        job,
        _URLS[kind],
        object_id(source) if source else "",
        object_id(output) if output else None,
    )


def _location(uri: str) -> Location | None:
    try:
        return location(uri) if uri.startswith("gs://") else None
    except ProviderFailed:
        return None
