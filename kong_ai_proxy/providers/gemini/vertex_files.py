"""Files for Vertex AI: objects in a bucket of Cloud Storage
(https://cloud.google.com/storage/docs/json_api/v1/objects), which `upstream_url` names, for the
configuration has no other place for it: https://storage.googleapis.com/<bucket>[/<prefix>].

A batch's input is converted while it arrives, and its output while it is downloaded. Lists are in
the order of the objects' names.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import gemini, openai
from kong_ai_proxy.formats.files import FileObject
from kong_ai_proxy.formats.gemini import storage, vertex_batches
from kong_ai_proxy.formats.gemini.storage import StoredObject
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.files import (
    FILE_OPERATIONS,
    MAX_OUTPUT_LINE,
    BatchInput,
    BatchOutput,
    LineFilter,
    Upload,
    leads_to,
    no_file,
)
from kong_ai_proxy.providers.flow import (
    Flow,
    Passed,
    ProviderFailed,
    Reply,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    asked,
    not_there,
    sent,
    unusable,
)
from kong_ai_proxy.providers.gemini import pages as google_pages
from kong_ai_proxy.providers.gemini.vertex_storage import (
    KINDS,
    Bucket,
    Location,
    bucket_of,
    encoded,
    location,
    made,
    object_id,
    object_name,
    own_location,
)

ROUTE_TYPES = {"chat": openai.CHAT, "completions": openai.COMPLETIONS}

PIECE = 2 << 20
"""Bytes. Pieces are multiples of 256 KiB but for the last one; Google advises larger ones, which
would all be held here. https://cloud.google.com/storage/docs/performing-resumable-uploads"""

_URLS = {url: ROUTE_TYPES[kind] for url, kind in KINDS.items()}
_ERRORS = gemini.GENERATE.parse_error
_INCOMPLETE = 308
_FIRST_ERROR = 300


def _run(wanted: Wanted) -> Steps:
    bucket = bucket_of(wanted.options)
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _upload(wanted, bucket))
        case "GET", ():
            return (yield from _list(wanted, bucket))
        case "GET", (told,):
            send = _of_object(bucket, own_location(told, bucket))
            reply = yield from sent(send, _ERRORS)
            file = _object(bucket, google_pages.read(storage.parse_object, reply))
            return Result(openai_files.render_file(file))
        case "GET", (told, "content"):
            return _content(wanted, bucket, told)
        case "DELETE", (told,):
            send = _of_object(bucket, own_location(told, bucket))
            yield from sent(send._replace(method="DELETE"), _ERRORS)
            return Result(openai_files.render_deleted(told))
    raise not_there(wanted, *FILE_OPERATIONS)


def _made(collection: str, told: str, options: ModelOptions) -> bool:
    """See Flow.made. An id tells the bucket."""
    if "$(" in (options.upstream_url or ""):
        return leads_to(location)(told)
    return leads_to(lambda each: own_location(each, bucket_of(options)))(told)


FILES = Flow(_run, takes_body=True, made=_made)


def _of_object(bucket: Bucket, place: Location) -> Send:
    path = f"/storage/v1/b/{bucket.name}/o/{encoded(place.name)}"
    return Send("GET", path, base_url=bucket.base_url)


def _object(bucket: Bucket, stored: StoredObject) -> FileObject:
    return FileObject(
        id=object_id(Location(bucket.name, stored.name)),
        size=stored.size,
        created_at=stored.created_at,
        filename=stored.name.rpartition("/")[2],
        purpose=made(stored.name).purpose,
    )


def _list(wanted: Wanted, bucket: Bucket) -> Steps:
    query = openai_files.parse_list(wanted.query)

    def fetch(token: str) -> Generator[Step, Any, tuple[list[FileObject], str]]:
        told = {"prefix": bucket.prefix, "maxResults": "1000", "pageToken": token}
        send = Send(
            "GET",
            f"/storage/v1/b/{bucket.name}/o",
            urlencode({name: value for name, value in told.items() if value}),
            base_url=bucket.base_url,
        )
        reply = yield from sent(send, _ERRORS)
        objects, following = google_pages.read(storage.parse_objects, reply)
        files = [each for each in objects if not each.name.endswith("/")]  # those are folders
        return [_object(bucket, each) for each in files], following

    found, has_more = yield from google_pages.listed(
        query, fetch, no_file, lambda file: query.purpose in ("", file.purpose)
    )
    page = openai_files.render_files(found, has_more=has_more)
    return Result(page, dropped=query.dropped())


def _content(wanted: Wanted, bucket: Bucket, told: str) -> Passed:
    place = own_location(told, bucket)
    send = _of_object(bucket, place)._replace(query="alt=media")
    found = made(place.name)
    if found.purpose != "batch_output" or not found.kind:
        return Passed(send, _ERRORS)
    assert wanted.texts is not None
    route_type = ROUTE_TYPES[found.kind]
    lines = BatchOutput(
        wanted.texts, route_type, vertex_batches.parse_answer, codec=gemini.GENERATE
    )
    return Passed(send, _ERRORS, "application/jsonl", LineFilter(lines, MAX_OUTPUT_LINE))


# ---- uploads


def _upload(wanted: Wanted, bucket: Bucket) -> Steps:
    upload = Upload(wanted, PIECE, lambda: _input(wanted))
    piece = yield from upload.piece()
    session = yield from _session(wanted, bucket, upload)
    at, stored = 0, None
    while stored is None:
        reply = yield from _put(session, at, piece, is_last=upload.is_over)
        if upload.is_over and reply.status < _FIRST_ERROR:
            stored = google_pages.read(storage.parse_object, reply)
            continue
        kept = _kept(reply, at, len(piece), is_last=upload.is_over)
        at += kept
        piece = piece[kept:]  # not two of them at a time
        if not piece:
            piece = yield from upload.piece()
    dropped = ("expires_after",) if upload.expires_after else ()
    told = openai_files.render_file(_object(bucket, stored))
    # A purpose that is told after a file of several pieces comes too late for its name.
    return Result({**told, "purpose": upload.purpose}, dropped=dropped)


def _input(wanted: Wanted) -> BatchInput:
    assert wanted.texts is not None
    return BatchInput(wanted.texts, _URLS, vertex_batches.render_request, codec=gemini.GENERATE)


def _session(wanted: Wanted, bucket: Bucket, upload: Upload) -> Generator[Step, Any, Send]:
    """Starts an upload; returns what a piece is sent with."""
    lines = upload.batch
    name = object_name(
        bucket,
        upload.filename,
        wanted.id,
        purpose=upload.purpose,
        kind=KINDS[lines.url] if lines else "",
        model=lines.model if lines else "",
    )
    media_type = "application/jsonl" if lines else upload.media_type or "application/octet-stream"
    path = f"/upload/storage/v1/b/{bucket.name}/o"
    start = Send(
        "POST",
        path,
        urlencode({"uploadType": "resumable", "name": name}),
        {"x-upload-content-type": media_type},
        orjson.dumps({"name": name, "contentType": media_type}),
        base_url=bucket.base_url,
    )
    reply = yield from sent(start, _ERRORS)
    query = _session_query(reply.headers.get("location", ""))
    headers = {"content-type": media_type}
    return Send("PUT", path, query, headers, base_url=bucket.base_url)


def _session_query(url: str) -> str:
    """Where Google wants the pieces: its host is not followed, they go where the upload started."""
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        raise unusable("location") from None
    if not any(name == "upload_id" for name, _ in query):
        raise unusable("expected an upload_id in the header location")
    return urlencode([(name, value) for name, value in query if name != "key"])


def _put(session: Send, at: int, piece: bytes, *, is_last: bool) -> Generator[Step, Any, Reply]:
    told = storage.content_range(at, len(piece), is_last=is_last)
    headers = {**session.headers, "content-range": told}
    return (yield from asked(session._replace(headers=headers, body=piece)))


def _kept(reply: Reply, at: int, length: int, *, is_last: bool) -> int:
    """How many bytes of a piece have been stored. Raises ProviderFailed."""
    if reply.status != _INCOMPLETE:
        raise ProviderFailed(_ERRORS(reply.status, reply.body))
    kept = storage.stored(reply.headers.get("range", "")) - at
    if not 0 < kept <= length or (is_last and kept == length):
        raise unusable("the upload does not go on")
    return kept
