"""Anthropic's message batches for clients of OpenAI's batches:
https://platform.claude.com/docs/en/build-with-claude/batch-processing.

Anthropic has no files for the requests of a batch: they come with the request that makes it, either
as its member `requests` or as a data URL in the place of a file's id. What a batch has answered is
a file, whose id is made of the batch's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import urlencode

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import anthropic, openai
from kong_ai_proxy.formats.anthropic import batches as anthropic_batches
from kong_ai_proxy.formats.anthropic.batches import MessageBatch
from kong_ai_proxy.formats.batches import Batch, BatchRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import an_array, an_object
from kong_ai_proxy.formats.files import FileObject
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.files import (
    BATCH_OPERATIONS,
    MAX_INPUT_LINE,
    MAX_OUTPUT_LINE,
    SLICE,
    BatchInput,
    BatchOutput,
    LineFilter,
    leads_to,
    no_batch,
    no_file,
)
from kong_ai_proxy.providers.flow import (
    Flow,
    Passed,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    not_there,
    parsed,
    sent,
    unusable,
    waited,
)

_ERRORS = anthropic.MESSAGES.parse_error
_PATH = "/v1/messages/batches"
_FILE = "file-"
_ID = re.compile(r"batch_(msgbatch_[A-Za-z0-9]{1,100})")
_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_URLS = {openai_batches.CHAT_URL: openai.CHAT}
_INLINE = "inline"
"""What stands for the id of an input file, which there is not."""

_NO_FILES = (
    "Anthropic keeps no files for batches: expected the member 'requests' in POST /batches (an "
    'array of {"custom_id", "body"}, by extra_body), or in the place of input_file_id a data URL: '
    "data:application/jsonl;base64,..."
)


def _run(wanted: Wanted) -> Steps:
    if wanted.collection == "files":
        return (yield from _file(wanted))
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _create(wanted))
        case "GET", ():
            return (yield from _list(wanted))
        case "GET", (told,):
            return Result(openai_batches.render_batch((yield from _retrieved(told))))
        case "GET", (told, "results"):
            return _results(wanted, _name(told))
        case "POST", (told, "cancel"):
            send = Send("POST", f"{_PATH}/{_name(told)}/cancel")
            return Result(openai_batches.render_batch((yield from _asked(send))))
        case "DELETE", (told,):
            yield from sent(Send("DELETE", f"{_PATH}/{_name(told)}"), _ERRORS)
            return Result({"id": told, "object": "batch", "deleted": True})
    raise not_there(wanted, *BATCH_OPERATIONS, "DELETE /batches/{id}")


def _file(wanted: Wanted) -> Steps:
    """What a batch has answered."""
    match wanted.method, wanted.rest:
        case "GET", (told,):
            batch = yield from _retrieved(_batch_id(told))
            if batch.output_file_id is None:
                raise no_file(told)
            return Result(openai_files.render_file(_output(batch)))
        case "GET", (told, "content"):
            return _results(wanted, _name(_batch_id(told)))
    raise not_there(wanted, "GET /files/{id}", "GET /files/{id}/content")


def _made(collection: str, told: str, _: ModelOptions) -> bool:
    """See Flow.made."""
    if collection == "files":
        return told == _INLINE or bool(_DATA.match(told)) or leads_to(_batch_id)(told)
    return bool(_ID.fullmatch(told))


BATCHES = Flow(_run, collections=("batches", "files"), made=_made, no_form=_NO_FILES)


def _name(told: str) -> str:
    """Anthropic's name for a batch. Raises ProviderFailed (404)."""
    found = _ID.fullmatch(told)
    if found is None:
        raise no_batch(told)
    return found[1]


def _batch_id(told: str) -> str:
    """The batch whose output a file is. Raises ProviderFailed (404)."""
    own = told.removeprefix(_FILE)
    if own == told or not _ID.fullmatch(own):
        raise no_file(told)
    return own


# ---- what a client sends


def _create(wanted: Wanted) -> Steps:
    given = wanted.body
    if given.get("requests") is not None:
        given = {**given, "input_file_id": _INLINE}
    asked = openai_batches.parse_create(given)
    if asked.endpoint not in _URLS:
        raise FormatError(f"endpoint: expected {' or '.join(_URLS)}")
    lines = _lines(asked.settings.get("requests"), asked.input_file_id, asked.endpoint)
    body = yield from _body(wanted, lines)
    batch = yield from _asked(Send("POST", _PATH, body=body))
    dropped = [name for name in asked.settings if name not in ("model", "requests")]
    dropped += ["metadata"] if asked.metadata else []
    dropped += ["completion_window"] if asked.hours != batch.hours else []
    return Result(openai_batches.render_batch(batch), dropped=tuple(dropped))


def _lines(requests: object, file_id: str, endpoint: str) -> bytes:
    """The requests in OpenAI's format, a line each. Raises FormatError."""
    if requests is not None:
        default = {"method": "POST", "url": endpoint}
        given = [
            {**default, **an_object(each, f"requests[{index}]")}
            for index, each in enumerate(an_array(requests, "requests"))
        ]
        return b"\n".join(map(orjson.dumps, given))
    data = _DATA.match(file_id)
    if data is None:
        raise FormatError(f"input_file_id: {_NO_FILES}")
    try:
        return base64.b64decode(file_id[data.end() :], validate=True)
    except binascii.Error:
        raise FormatError("input_file_id: expected base64 in the data URL") from None


def _body(wanted: Wanted, lines: bytes) -> Generator[Step, Any, bytes]:
    """Others have a turn while many lines are converted."""
    assert wanted.texts is not None
    found: list[bytes] = []

    def render(request: BatchRequest, body: Mapping[str, object]) -> bytes:
        found.append(anthropic_batches.render_request(request, body))
        return b""

    whole = LineFilter(BatchInput(wanted.texts, _URLS, render), MAX_INPUT_LINE)
    for start in range(0, len(lines), SLICE):
        if start:
            yield from waited(0.0)
        whole.feed(lines[start : start + SLICE])
    whole.end()
    return b'{"requests":[' + b",".join(found) + b"]}"


# ---- what it gets


def _asked(send: Send) -> Generator[Step, Any, Batch]:
    reply = yield from sent(send, _ERRORS)
    value = parsed(reply)
    try:
        return _batch(anthropic_batches.parse_batch(value))
    except FormatError as wrong:
        raise unusable(str(wrong)) from None


def _retrieved(told: str) -> Generator[Step, Any, Batch]:
    return (yield from _asked(Send("GET", f"{_PATH}/{_name(told)}")))


def _batch(found: MessageBatch) -> Batch:
    own = f"batch_{found.name}"
    return Batch(
        id=own,
        endpoint=openai_batches.CHAT_URL,
        input_file_id=_INLINE,
        status=found.status,
        created_at=found.created_at,
        output_file_id=f"{_FILE}{own}" if found.has_results else None,
        in_progress_at=found.created_at,
        ended_at=found.ended_at,
        cancelling_at=found.cancelling_at,
        expires_at=found.expires_at,
        counts=found.counts,
    )


def _output(batch: Batch) -> FileObject:
    """Anthropic does not tell how large it is."""
    return FileObject(
        id=f"{_FILE}{batch.id}",
        size=0,
        created_at=batch.ended_at or batch.created_at,
        filename=f"{batch.id}_output.jsonl",
        purpose="batch_output",
    )


def _list(wanted: Wanted) -> Steps:
    asked = openai_files.parse_list(
        wanted.query, most=openai_batches.MAX_LISTED, usual=openai_batches.USUALLY_LISTED
    )
    query = {"limit": str(asked.limit), **({"after_id": _name(asked.after)} if asked.after else {})}
    reply = yield from sent(Send("GET", _PATH, urlencode(query)), _ERRORS)
    value = parsed(reply)
    try:
        found, has_more = anthropic_batches.parse_batches(value)
    except FormatError as wrong:
        raise unusable(str(wrong)) from None
    page = openai_batches.render_batches(map(_batch, found), has_more=has_more)
    return Result(page, dropped=asked.dropped(kept="desc"))


def _results(wanted: Wanted, name: str) -> Passed:
    assert wanted.texts is not None
    lines = BatchOutput(
        wanted.texts, openai.CHAT, anthropic_batches.parse_answer, anthropic.MESSAGES
    )
    whole = LineFilter(lines, MAX_OUTPUT_LINE)
    return Passed(Send("GET", f"{_PATH}/{name}/results"), _ERRORS, "application/jsonl", whole)
