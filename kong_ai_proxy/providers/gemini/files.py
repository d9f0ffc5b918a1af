"""Files of the Gemini API for clients of OpenAI's: https://ai.google.dev/api/files.

Google deletes them after 48 hours. A batch's input is converted while it arrives, and its output
while it is downloaded; Google lets nothing else be downloaded but what it has made itself.

What OpenAI's clients want to know of a file again is in the name that is made for it: its purpose
and, of a batch's input, what is asked; the model that its lines ask for stands behind the file
name in the display name.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import gemini, openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.files import FileObject
from kong_ai_proxy.formats.gemini import batches as gemini_batches
from kong_ai_proxy.formats.gemini import files as gemini_files
from kong_ai_proxy.formats.gemini.files import StoredFile
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.files import (
    FILE_OPERATIONS,
    MAX_OUTPUT_LINE,
    BatchInput,
    BatchOutput,
    LineFilter,
    Upload,
    file_id,
    file_name,
    leads_to,
    no_file,
)
from kong_ai_proxy.providers.flow import (
    Flow,
    ParseError,
    Passed,
    Reply,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    not_there,
    sent,
    unusable,
)
from kong_ai_proxy.providers.gemini import pages as google_pages

KINDS: Mapping[str, str] = {
    openai_batches.CHAT_URL: "chat",
    openai_batches.EMBEDDINGS_URL: "embeddings",
}
"""What is asked in a batch by the URL of its requests."""

ROUTE_TYPES: Mapping[str, str] = {"chat": openai.CHAT, "embeddings": openai.EMBEDDINGS}

_CODECS: Mapping[str, ProviderCodec] = {"chat": gemini.GENERATE, "embeddings": gemini.EMBED}
_URLS = {url: ROUTE_TYPES[kind] for url, kind in KINDS.items()}

PIECE = 8 << 20
"""Bytes. Google's pieces are multiples of 8 MiB but for the last one; its own clients send that."""

_ERRORS = gemini.GENERATE.parse_error
_FORBIDDEN = 403
_GONE = "may not exist"  # You do not have permission to access the File x or it may not exist.
_UPLOAD = "/upload/v1beta/files"
_ID = r"[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?"
_OWN_NAME = re.compile(rf"(?:(?P<kind>{'|'.join(ROUTE_TYPES)}):)?(?P<name>{_ID})")
_MADE = re.compile(
    rf"(?:input-(?P<kind>{'|'.join(ROUTE_TYPES)})|(?P<purpose>[a-z]+(?:-[a-z]+)?))-[a-z0-9]{{20}}"
)
_PURPOSES = {purpose.replace("_", "-"): purpose for purpose in openai_files.PURPOSES}
_MODEL = re.compile(r"(?P<filename>.*);model=(?P<model>[^;]{0,200})", re.DOTALL)


def _run(wanted: Wanted) -> Steps:
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _upload(wanted))
        case "GET", ():
            return (yield from _list(wanted))
        case "GET", (told,):
            return Result(openai_files.render_file((yield from _retrieved(told))))
        case "GET", (told, "content"):
            return _content(wanted, told)
        case "DELETE", (told,):
            return (yield from _delete(told))
    raise not_there(wanted, *FILE_OPERATIONS)


# ---- names


def output_id(kind: str, name: str) -> str:
    """The id that clients get for what a batch has written."""
    return file_id(f"{kind}:{name}")


def find(told: str) -> tuple[str, str]:
    """The name of a file without files/, and what kind of answers it holds; "" where it is no
    batch's output. Raises ProviderFailed (404)."""
    found = _OWN_NAME.fullmatch(file_name(told))
    if found is None:
        raise no_file(told)
    return found["name"], found["kind"] or ""


_leads = leads_to(find)


def made_file(collection: str, told: str, _: ModelOptions) -> bool:
    """See Flow.made."""
    return collection == "files" and _leads(told)


FILES = Flow(_run, takes_body=True, made=made_file)


def input_kind(name: str) -> str:
    """What a batch's input asks for; "" for another file."""
    found = _MADE.fullmatch(name)
    return (found and found["kind"]) or ""


def model_of(stored: StoredFile) -> str:
    """The model that the lines of a batch's input ask for; "" where they tell none."""
    return _named(stored)[1]


def _named(stored: StoredFile) -> tuple[str, str]:
    """The client's name of a file, and the model that its lines ask for."""
    found = _MODEL.fullmatch(stored.display_name) if input_kind(stored.name) else None
    if found is None:
        return stored.display_name or stored.name, ""
    return found["filename"], found["model"]


def _new_name(upload: Upload, wanted: Wanted) -> str:
    kind = KINDS[upload.batch.url] if upload.batch else ""
    # A purpose that is told after a file of several pieces comes too late for its name.
    what = f"input-{kind}" if kind else (upload.purpose or "user_data").replace("_", "-")
    return f"{what}-{wanted.id.lower()[:20]}"


def _display_name(upload: Upload) -> str:
    if upload.batch is None:
        return upload.filename
    named = f"{upload.filename};model={upload.batch.model}"
    return named if _MODEL.fullmatch(named) else f"{upload.filename};model="


def _object(stored: StoredFile, kind: str = "") -> FileObject:
    made = _MADE.fullmatch(stored.name)
    purpose = _PURPOSES.get((made and made["purpose"]) or "", "user_data")
    if made and made["kind"]:
        purpose = "batch"
    return FileObject(
        id=output_id(kind, stored.name) if kind else file_id(stored.name),
        size=stored.size,
        created_at=stored.created_at,
        filename=_named(stored)[0],
        purpose="batch_output" if kind else purpose,
        expires_at=stored.expires_at,
        status=stored.status,
        status_details=stored.error,
    )


# ---- uploads


def _upload(wanted: Wanted) -> Steps:
    upload = Upload(wanted, PIECE, lambda: _input(wanted))
    piece = yield from upload.piece()
    size = len(piece) if upload.is_over else None
    session = yield from _session(upload, wanted, size)
    offset = 0
    while not upload.is_over:
        reply = yield from _put(session, offset, piece, "upload")
        if reply.headers.get("x-goog-upload-status") != "active":
            raise unusable("the upload ended before the file")
        offset += len(piece)
        piece = b""  # not two of them at a time
        piece = yield from upload.piece()
    reply = yield from _put(session, offset, piece, "upload, finalize")
    stored = google_pages.read(gemini_files.parse_uploaded, reply)
    dropped = ("expires_after",) if upload.expires_after else ()
    told = openai_files.render_file(_object(stored))
    return Result({**told, "purpose": upload.purpose}, dropped=dropped)


def _input(wanted: Wanted) -> BatchInput:
    assert wanted.texts is not None
    return BatchInput(wanted.texts, _URLS, gemini_batches.render_request)


def _session(upload: Upload, wanted: Wanted, size: int | None) -> Generator[Step, Any, str]:
    """Starts an upload; returns the query that its pieces go with. `size` is None where it is not
    known yet."""
    # https://ai.google.dev/gemini-api/docs/batch-api calls the type of a batch's input so.
    media_type = "jsonl" if upload.batch else upload.media_type or "application/octet-stream"
    headers = {
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-command": "start",
        "x-goog-upload-header-content-type": media_type,
    }
    # The protocol does without it: Google's client for Firebase Storage, which speaks the same one,
    # tells none (github.com/firebase/firebase-android-sdk, ResumableUploadStartRequest).
    if size is not None:
        headers["x-goog-upload-header-content-length"] = str(size)
    body = gemini_files.render_start(_new_name(upload, wanted), _display_name(upload))
    start = Send("POST", _UPLOAD, headers=headers, body=orjson.dumps(body))
    reply = yield from sent(start, _ERRORS)
    return _session_query(reply.headers.get("x-goog-upload-url", ""))


def _session_query(url: str) -> str:
    """Where Google wants the pieces. Its host is not followed: they go where the upload started.
    Google repeats a key that came in the query, which is added anyway."""
    try:
        parts = urlsplit(url)
        query = [(name, value) for name, value in parse_qsl(parts.query) if name != "key"]
    except ValueError:
        raise unusable("x-goog-upload-url") from None
    if parts.path != _UPLOAD or not any(name == "upload_id" for name, _ in query):
        raise unusable(f"expected {_UPLOAD}?upload_id=... as x-goog-upload-url")
    return urlencode(query)


def _put(session: str, offset: int, piece: bytes, command: str) -> Generator[Step, Any, Reply]:
    headers = {
        "content-type": "application/octet-stream",
        "x-goog-upload-command": command,
        "x-goog-upload-offset": str(offset),
    }
    return (yield from sent(Send("POST", _UPLOAD, session, headers, piece), _ERRORS))


# ---- what is there


def errors(told: str) -> ParseError:
    """What makes sense of an error where a file is asked for, by the id that led to it. Of one that
    is not there Google says that it may not be there, with the status 403."""

    def parse(status: int, body: bytes) -> ProviderError:
        error = _ERRORS(status, body)
        is_gone = status == _FORBIDDEN and _GONE in error.message
        return no_file(told).error if is_gone else error

    return parse


def stored_file(name: str, told: str) -> Generator[Step, Any, StoredFile]:
    """What Google tells of a file; `told` is the id that led to it. Raises ProviderFailed."""
    reply = yield from sent(Send("GET", f"/v1beta/files/{name}"), errors(told))
    return google_pages.read(gemini_files.parse_file, reply)


def _retrieved(told: str) -> Generator[Step, Any, FileObject]:
    name, kind = find(told)
    return _object((yield from stored_file(name, told)), kind)


def _list(wanted: Wanted) -> Steps:
    asked = openai_files.parse_list(wanted.query, usual=google_pages.PAGE)

    def fetch(token: str) -> Generator[Step, Any, tuple[list[FileObject], str]]:
        query = {"pageSize": str(google_pages.PAGE), **({"pageToken": token} if token else {})}
        reply = yield from sent(Send("GET", "/v1beta/files", urlencode(query)), _ERRORS)
        files, following = google_pages.read(gemini_files.parse_files, reply)
        return [_object(each) for each in files], following

    found, has_more = yield from google_pages.listed(
        asked, fetch, no_file, lambda file: asked.purpose in ("", file.purpose)
    )
    page = openai_files.render_files(found, has_more=has_more)
    return Result(page, dropped=asked.dropped())


def _content(wanted: Wanted, told: str) -> Passed:
    """From the place to which the file's own address redirects, as Google's pages on batches do."""
    name, kind = find(told)
    send = Send("GET", f"/download/v1beta/files/{name}:download", "alt=media")
    if not kind:
        return Passed(send, errors(told))
    assert wanted.texts is not None
    lines = BatchOutput(wanted.texts, ROUTE_TYPES[kind], gemini_batches.parse_answer, _CODECS[kind])
    return Passed(send, errors(told), "application/jsonl", LineFilter(lines, MAX_OUTPUT_LINE))


def _delete(told: str) -> Steps:
    name, _ = find(told)
    yield from sent(Send("DELETE", f"/v1beta/files/{name}"), errors(told))
    return Result(openai_files.render_deleted(told))
