"""Amazon S3's XML: https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html. Errors are in
s3_errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from kong_ai_proxy.formats.bedrock.s3_errors import parse_error
from kong_ai_proxy.formats.bedrock.times import seconds
from kong_ai_proxy.formats.errors import FormatError, ProviderError

MAX_PARTS = 10_000
"""Of one upload: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html."""

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_NOT_PLAIN = re.compile(rb"<!DOCTYPE|<!ENTITY|\0", re.IGNORECASE)  # NUL: not UTF-8 either


_DONE = ("CompleteMultipartUploadResult", "CopyObjectResult")
_LENGTH = re.compile(r"[0-9]{1,18}")


class S3Object(NamedTuple):
    """What a list tells of one object."""

    key: str
    size: int
    modified: int
    """Seconds since 1970."""


class Listing(NamedTuple):
    """A page of a bucket's objects, in the order of their keys."""

    objects: tuple[S3Object, ...]
    next_token: str
    """For the next page; "" where there is none."""


def parse_listing(body: bytes) -> Listing:
    """An answer of ListObjectsV2 with encoding-type=url. Raises FormatError.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
    """
    root = _expected(body, "ListBucketResult")
    is_encoded = root.findtext("{*}EncodingType") == "url"
    found = []
    for each in root.iterfind("{*}Contents"):
        key = each.findtext("{*}Key") or ""
        size = each.findtext("{*}Size") or ""
        found.append(
            S3Object(
                unquote(key) if is_encoded else key,
                length(size),
                seconds(each.findtext("{*}LastModified") or ""),
            )
        )
    is_truncated = root.findtext("{*}IsTruncated") == "true"
    token = root.findtext("{*}NextContinuationToken") or ""
    return Listing(tuple(found), token if is_truncated else "")


def length(text: str) -> int:
    """The bytes that a text counts, of a listing or in the header content-length; 0 for none."""
    return int(text) if _LENGTH.fullmatch(text) else 0


def parse_upload_id(body: bytes) -> str:
    """An answer of CreateMultipartUpload. Raises FormatError.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html
    """
    found = _expected(body, "InitiateMultipartUploadResult").findtext("{*}UploadId")
    if not found:
        raise FormatError("expected UploadId")
    return found


def render_parts(etags: Iterable[str]) -> bytes:
    """The body of CompleteMultipartUpload; the parts count from 1.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
    """
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    text = f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{parts}</CompleteMultipartUpload>'
    return text.encode()


def late_error(body: bytes) -> ProviderError | None:
    """What went wrong after the status 200 had been sent, as CompleteMultipartUpload and
    CopyObject may tell; None where nothing did. Raises FormatError for what says neither."""
    root = _root(body)
    name = _name(root) if root is not None else ""
    if name == "Error":
        return parse_error(500, body)
    if name not in _DONE:
        raise FormatError(f"expected {' or '.join(_DONE)} as XML")
    return None


def _expected(body: bytes, name: str) -> ElementTree.Element:
    root = _root(body)
    if root is None or _name(root) != name:
        raise FormatError(f"expected {name} as XML")
    return root


def _root(body: bytes) -> ElementTree.Element | None:
    """The document's element; None for no XML, and for XML that defines entities. S3 sends white
    space as long as it is at work."""
    if _NOT_PLAIN.search(body):
        return None
    try:
        return ElementTree.fromstring(body.strip())  # noqa: S314 - without entities
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
