"""Files for Bedrock, which has none of its own: they are kept in the configured bucket in S3, from
where batches read them. See bedrock_bucket for what lies where.

An upload that breaks off leaves its parts behind where the client or S3 has gone; a lifecycle rule
of the bucket (AbortIncompleteMultipartUpload) removes such parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.bedrock import CONVERSE, s3
from kong_ai_proxy.formats.bedrock import batches as bedrock_batches
from kong_ai_proxy.formats.bedrock.embeddings import ANY_EMBED
from kong_ai_proxy.formats.bedrock.s3_errors import parse_error
from kong_ai_proxy.formats.bedrock.times import seconds
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.files import FileObject
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.bedrock.bucket import (
    BATCH,
    EMBEDDINGS,
    Bucket,
    Key,
    bucket,
    known_key,
    parse_key,
    upload_key,
)
from kong_ai_proxy.providers.bedrock.output import check_signs
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
    Passed,
    ProviderFailed,
    Reply,
    Result,
    Step,
    Steps,
    Texts,
    Wanted,
    asked,
    not_there,
    sent,
    unusable,
)

PART = 5 << 20
"""Bytes of one part: the least that S3 takes, the last part aside.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

MODEL_HEADER = "x-amz-meta-model"
"""Tells the model that the requests of a batch's file name."""

ROUTE_TYPES = {BATCH: openai.CHAT, EMBEDDINGS: openai.EMBEDDINGS}
URLS = {BATCH: openai_batches.CHAT_URL, EMBEDDINGS: openai_batches.EMBEDDINGS_URL}
_CODECS: Mapping[str, ProviderCodec] = {BATCH: CONVERSE, EMBEDDINGS: ANY_EMBED}

_NOT_FOUND = 404
_PAGE = 1000
_MAX_PAGES = 20
_UNTOLD = "user_data"  # a file's kind as long as its purpose has not been told
_BYTES = "application/octet-stream"
_LINES = "application/jsonl"
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_HEADER_TEXT = re.compile(r"[!-~]{1,500}")

_Read = TypeVar("_Read")


def _run(wanted: Wanted) -> Steps:
    place = bucket(wanted.options)
    check_signs(wanted)
    match wanted.method, wanted.rest:
        case "POST", ():
            return (yield from _create(wanted, place))
        case "GET", ():
            return (yield from _list(wanted, place))
        case "GET", (told,):
            return (yield from _retrieve(told, place))
        case "DELETE", (told,):
            return (yield from _delete(told, place))
        case "GET", (told, "content"):
            return _content(wanted, told, place)
    raise not_there(wanted, *FILE_OPERATIONS)


_leads = leads_to(lambda told: known_key(file_name(told), told))


def made(collection: str, told: str, _: ModelOptions) -> bool:
    """See Flow.made."""
    return collection == "files" and _leads(told)


FILES = Flow(_run, takes_body=True, made=made)


# ---- uploading


def _create(wanted: Wanted, place: Bucket) -> Steps:
    upload = Upload(wanted, PART, lambda: _batch_input(wanted))
    taken = [(yield from upload.piece())]
    kind = _kind(upload)
    key = upload_key(wanted, kind, upload.filename)
    headers = _headers(upload)
    if upload.is_over:
        yield from sent(place.send("PUT", key, headers=headers, body=taken[0]), parse_error)
    else:
        yield from _in_parts(place, key, headers, taken, upload)
    if kind != _kind(upload):  # the purpose came after the file
        moved = upload_key(wanted, _kind(upload), upload.filename)
        yield from _move(place, key, moved)
        key = moved
    file = FileObject(
        id=file_id(key),
        size=upload.taken,
        created_at=int(wanted.now),
        filename=upload.filename,
        purpose=upload.purpose,
    )
    dropped = () if upload.expires_after is None else ("expires_after",)
    return Result(openai_files.render_file(file), dropped=dropped)


def _batch_input(wanted: Wanted) -> BatchInput:
    urls = {URLS[kind]: route_type for kind, route_type in ROUTE_TYPES.items()}
    return BatchInput(texts_of(wanted), urls, bedrock_batches.render_line)


def texts_of(wanted: Wanted) -> Texts:
    """What converts single requests and answers."""
    assert wanted.texts is not None
    return wanted.texts


def _kind(upload: Upload) -> str:
    if upload.batch is not None and upload.batch.url == URLS[EMBEDDINGS]:
        return EMBEDDINGS
    return upload.purpose or _UNTOLD


def _headers(upload: Upload) -> dict[str, str]:
    known = _MEDIA_TYPE.fullmatch(upload.media_type)
    headers = {"content-type": upload.media_type if known else _BYTES}
    model = upload.batch.model if upload.batch is not None else ""
    return {**headers, MODEL_HEADER: model} if _HEADER_TEXT.fullmatch(model) else headers


def _in_parts(
    place: Bucket, key: str, headers: Mapping[str, str], taken: list[bytes], upload: Upload
) -> Generator[Step, Any, None]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html. `taken` has the first
    part, and never two of them."""
    begun = yield from sent(place.send("POST", key, {"uploads": ""}, headers), parse_error)
    name = {"uploadId": _read(s3.parse_upload_id, begun)}
    try:
        etags = [(yield from _put_part(place, key, name, 1, taken.pop()))]
        while not upload.is_over:
            taken.append((yield from upload.piece()))
            if len(etags) == s3.MAX_PARTS:
                raise FormatError(f"file: expected at most {s3.MAX_PARTS * PART} bytes")
            etags.append((yield from _put_part(place, key, name, len(etags) + 1, taken.pop())))
        complete = place.send(
            "POST", key, name, {"content-type": "application/xml"}, s3.render_parts(etags)
        )
        _check_late((yield from sent(complete, parse_error)))
    except (FormatError, ProviderFailed):
        yield from asked(place.send("DELETE", key, name))
        raise


def _put_part(
    place: Bucket, key: str, name: Mapping[str, str], number: int, piece: bytes
) -> Generator[Step, Any, str]:
    """Returns its ETag."""
    query = {**name, "partNumber": str(number)}
    send = place.send("PUT", key, query, {"content-type": _BYTES}, piece)
    reply = yield from sent(send, parse_error)
    etag = reply.headers.get("etag", "")
    if not etag:
        raise unusable("expected an ETag")
    return etag


def _move(place: Bucket, key: str, to: str) -> Generator[Step, Any, None]:
    source = {"x-amz-copy-source": place.source(key)}
    _check_late((yield from sent(place.send("PUT", to, headers=source), parse_error)))
    yield from sent(place.send("DELETE", key), parse_error)


def _check_late(reply: Reply) -> None:
    """Raise ProviderFailed where an answer of status 200 holds an error."""
    error = _read(s3.late_error, reply)
    if error is not None:
        raise ProviderFailed(error)


def _read(parse: Callable[[bytes], _Read], reply: Reply) -> _Read:
    try:
        return parse(reply.body)
    except FormatError as wrong:
        raise unusable(str(wrong)) from None


# ---- what is there


def head(place: Bucket, key: str, told: str) -> Generator[Step, Any, Reply]:
    """What S3 tells of one object. Raises ProviderFailed, 404 where it is not there; `told` is the
    id that led to it."""
    return (yield from sent(place.send("HEAD", key), _errors(told)))


def _errors(told: str) -> Callable[[int, bytes], ProviderError]:
    def parse(status: int, body: bytes) -> ProviderError:
        return no_file(told).error if status == _NOT_FOUND else parse_error(status, body)

    return parse


def _retrieve(told: str, place: Bucket) -> Steps:
    key = file_name(told)
    known = known_key(key, told)
    reply = yield from head(place, key, told)
    size = s3.length(reply.headers.get("content-length", ""))
    modified = seconds(reply.headers.get("last-modified", ""))
    return Result(openai_files.render_file(_file(key, known, size, modified)))


def _file(key: str, known: Key, size: int, modified: int) -> FileObject:
    return FileObject(
        id=file_id(key),
        size=size,
        created_at=modified if known.is_output else known.created_at,
        filename=known.filename,
        purpose=known.purpose,
    )


def _list(wanted: Wanted, place: Bucket) -> Steps:
    """Goes through the bucket until it has as many as are wanted, and one more."""
    query = openai_files.parse_list(wanted.query)
    where = {"max-keys": str(_PAGE)}
    if query.after:
        known_key(file_name(query.after), query.after)
        where["start-after"] = place.prefix + file_name(query.after)
    files: list[FileObject] = []
    for _ in range(_MAX_PAGES):
        reply = yield from sent(place.listing(where), parse_error)
        listing = _read(s3.parse_listing, reply)
        files += _files(listing, place, query.purpose)
        if not listing.next_token or len(files) > query.limit:
            break
        where = {"max-keys": str(_PAGE), "continuation-token": listing.next_token}
    has_more = len(files) > query.limit or bool(listing.next_token)
    page = openai_files.render_files(files[: query.limit], has_more=has_more)
    return Result(page, dropped=query.dropped(kept="desc"))


def _files(listing: s3.Listing, place: Bucket, purpose: str) -> list[FileObject]:
    """Those of a page that are files: there may be others in the bucket, and jobs write their
    manifests."""
    found = []
    for each in listing.objects:
        key = each.key.removeprefix(place.prefix)
        known = parse_key(key)
        if known is not None and purpose in ("", known.purpose):
            found.append(_file(key, known, each.size, each.modified))
    return found


def _delete(told: str, place: Bucket) -> Steps:
    """S3 says of what is not there that it has deleted it."""
    key = file_name(told)
    known_key(key, told)
    yield from head(place, key, told)
    yield from sent(place.send("DELETE", key), parse_error)
    return Result(openai_files.render_deleted(told))


def _content(wanted: Wanted, told: str, place: Bucket) -> Passed:
    """A job's output is converted back while it passes. Everything else comes as it is stored, a
    batch's input in Bedrock's format."""
    key = file_name(told)
    known = known_key(key, told)
    send = place.send("GET", key)
    if not known.is_output:
        return Passed(send, _errors(told), _BYTES)
    lines = BatchOutput(
        texts_of(wanted),
        ROUTE_TYPES[known.kind],
        bedrock_batches.parse_line,
        _CODECS[known.kind],
    )
    return Passed(send, _errors(told), _LINES, LineFilter(lines, MAX_OUTPUT_LINE))
