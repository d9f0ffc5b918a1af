"""Batches of the Gemini API for clients of OpenAI's:
https://ai.google.dev/gemini-api/docs/batch-api.

The input is a file of the Files API (gemini_files), converted when it was uploaded. A batch's
display name is the name of that file, so that what it asks is known later on.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from urllib.parse import urlencode

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import gemini
from kong_ai_proxy.formats.batches import Batch, NewBatch
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import batches as gemini_batches
from kong_ai_proxy.formats.gemini.batches import Job
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.providers.files import BATCH_OPERATIONS, batch_model, file_id, no_batch
from kong_ai_proxy.providers.flow import Flow, Result, Send, Step, Steps, Wanted, not_there, sent
from kong_ai_proxy.providers.gemini import files as gemini_files
from kong_ai_proxy.providers.gemini import jobs as google_batches
from kong_ai_proxy.providers.gemini import pages as google_pages
from kong_ai_proxy.providers.gemini.paths import public_model

_ERRORS = gemini.GENERATE.parse_error
_OPERATIONS = {"chat": "batchGenerateContent", "embeddings": "asyncBatchEmbedContent"}
_URLS = {kind: url for url, kind in gemini_files.KINDS.items()}


def _run(wanted: Wanted) -> Steps:
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _create(wanted))
        case "GET", ():
            return (yield from _list(wanted))
        case "GET", (told,):
            batch = _batch((yield from _job(google_batches.name_of(told))))
            return Result(openai_batches.render_batch(batch))
        case "POST", (told, "cancel"):
            return (yield from _cancel(told))
        case "DELETE", (told,):
            name = google_batches.name_of(told)
            yield from sent(Send("DELETE", f"/v1beta/batches/{name}"), _ERRORS)
            return Result(google_batches.deleted(told))
    raise not_there(wanted, *BATCH_OPERATIONS, "DELETE /batches/{id}")


def _made(collection: str, told: str, options: ModelOptions) -> bool:
    """See Flow.made."""
    if collection == "files":
        return gemini_files.made_file(collection, told, options)
    return google_batches.leads(told)


BATCHES = Flow(_run, made=_made)


def _create(wanted: Wanted) -> Steps:
    asked = openai_batches.parse_create(wanted.body)
    kind = gemini_files.KINDS.get(asked.endpoint)
    if kind is None:
        raise FormatError(f"endpoint: expected {' or '.join(gemini_files.KINDS)}")
    name, _ = gemini_files.find(asked.input_file_id)
    if gemini_files.input_kind(name) not in ("", kind):
        raise FormatError("endpoint: the requests of the input file are for another one")
    model = yield from _model(wanted, name, asked.input_file_id)
    settings, dropped = google_batches.settings(asked, gemini_batches.SETTINGS)
    send = Send(
        "POST",
        f"{public_model(model)}:{_OPERATIONS[kind]}",
        body=orjson.dumps(gemini_batches.render_create(name, name, settings)),
    )
    reply = yield from sent(send, gemini_files.errors(asked.input_file_id))
    batch = _batch(google_pages.read(gemini_batches.parse_job, reply), asked)
    return Result(openai_batches.render_batch(batch), dropped=dropped)


def _model(wanted: Wanted, name: str, told: str) -> Generator[Step, Any, str]:
    """`name` is that of the input, `told` its id. The lines of a file that was not uploaded here
    are in Google's format, which names no model."""
    if wanted.model and (wanted.body.get("model") or not gemini_files.input_kind(name)):
        return wanted.model
    stored = yield from gemini_files.stored_file(name, told)
    return batch_model(wanted, gemini_files.model_of(stored)) or google_batches.no_model()


def _job(name: str) -> Generator[Step, Any, Job]:
    reply = yield from sent(Send("GET", f"/v1beta/batches/{name}"), _ERRORS)
    return google_pages.read(gemini_batches.parse_job, reply)


def _list(wanted: Wanted) -> Steps:
    asked = google_batches.list_query(wanted)

    def fetch(token: str) -> Generator[Step, Any, tuple[list[Batch], str]]:
        query = {"pageSize": str(google_pages.PAGE), **({"pageToken": token} if token else {})}
        reply = yield from sent(Send("GET", "/v1beta/batches", urlencode(query)), _ERRORS)
        jobs, following = google_pages.read(gemini_batches.parse_jobs, reply)
        return [_batch(each) for each in jobs], following

    found, has_more = yield from google_pages.listed(asked, fetch, no_batch)
    page = openai_batches.render_batches(found, has_more=has_more)
    return Result(page, dropped=asked.dropped())


def _cancel(told: str) -> Steps:
    name = google_batches.name_of(told)
    yield from sent(Send("POST", f"/v1beta/batches/{name}:cancel", body=b"{}"), _ERRORS)
    batch = google_batches.cancelling(_batch((yield from _job(name))))
    return Result(openai_batches.render_batch(batch))


def _batch(job: Job, asked: NewBatch | None = None) -> Batch:
    source = job.source or (job.display_name if gemini_files.input_kind(job.display_name) else "")
    kind = gemini_files.input_kind(source) or "chat"
    if asked is not None:
        kind = gemini_files.KINDS[asked.endpoint]
        source, _ = gemini_files.find(asked.input_file_id)
    output = gemini_files.output_id(kind, job.destination) if job.destination else None
    return google_batches.batch(job, _URLS[kind], file_id(source) if source else "", output)
