"""Images, documents, films and sounds of Bedrock's Converse.

Each is a block with its `format` and its `source`, bytes or a place in S3; never an address in the
web. https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple

from kong_ai_proxy.formats.conversation import Media, MediaKind
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import an_object, objects, text_of, wrong


class _Kind(NamedTuple):
    """How one kind of media is called, and its formats."""

    block: str
    kind: MediaKind
    formats: Mapping[str, str]
    """Media type by format."""
    others: Mapping[str, str] = {}
    """Format by another name: the second part of a media type, or the end of a file's name."""


_OFFICE = "application/vnd.openxmlformats-officedocument"
_KINDS = (
    _Kind(
        "image",
        "image",
        {f: f"image/{f}" for f in ("png", "jpeg", "gif", "webp")},
        {"jpg": "jpeg"},
    ),
    _Kind(
        "document",
        "file",
        {
            "pdf": "application/pdf",
            "csv": "text/csv",
            "doc": "application/msword",
            "docx": f"{_OFFICE}.wordprocessingml.document",
            "xls": "application/vnd.ms-excel",
            "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
            "html": "text/html",
            "txt": "text/plain",
            "md": "text/markdown",
        },
        {"htm": "html", "markdown": "md"},
    ),
    _Kind(
        "video",
        "video",
        {
            "mkv": "video/x-matroska",
            "mov": "video/quicktime",
            "mp4": "video/mp4",
            "webm": "video/webm",
            "flv": "video/x-flv",
            "mpeg": "video/mpeg",
            "mpg": "video/mpeg",
            "wmv": "video/x-ms-wmv",
            "three_gp": "video/3gpp",
        },
        {"3gp": "three_gp"},
    ),
    _Kind(
        "audio",
        "audio",
        {
            "mp3": "audio/mpeg",
            "wav": "audio/wav",
            "opus": "audio/opus",
            "aac": "audio/aac",
            "flac": "audio/flac",
            "mp4": "audio/mp4",
            "ogg": "audio/ogg",
            "mkv": "audio/x-matroska",
            "mka": "audio/x-matroska",
            "x-aac": "audio/x-aac",
            "m4a": "audio/mp4",
            "mpeg": "audio/mpeg",
            "mpga": "audio/mpeg",
            "pcm": "audio/pcm",
            "webm": "audio/webm",
        },
        {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "l16": "pcm", "x-m4a": "m4a"},
    ),
)
_BY_KIND = {each.kind: each for each in _KINDS}
_BY_BLOCK = {each.block: each for each in _KINDS}
BLOCKS = frozenset(_BY_BLOCK)
"""The names of the blocks that are media."""

# The first letters of base64 of each format's first bytes.
_SIGNS = (("iVBOR", "png"), ("/9j/", "jpeg"), ("R0lG", "gif"), ("UklGR", "webp"))


def _named_formats() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for each in _KINDS:
        for name, media_type in each.formats.items():
            found.setdefault((each.kind, media_type.partition("/")[2]), name)
        found.update({(each.kind, name): name for name in each.formats})
        found.update({(each.kind, name): told for name, told in each.others.items()})
    return found


_FORMATS = _named_formats()

_NOT_IN_NAMES = re.compile(r"[^0-9A-Za-z \-()\[\]]+")
_MAX_NAME = 200


def rendered(media: Media, where: str, names: set[str]) -> dict[str, object]:
    """The block of `media`. `names`: those of the documents so far, which are all different; its
    own is added. Raises FormatError for a format that Converse does not have, and for media that
    are somewhere else."""
    kind = _BY_KIND[media.kind]
    block = {"format": _format(media, kind, where), "source": _source(media, where)}
    if kind.block == "document":
        block["name"] = _document_name(media, names)
    return {kind.block: block}


def _source(media: Media, where: str) -> dict[str, object]:
    if media.data:
        return {"bytes": media.data}
    if media.url.startswith("s3://"):
        return {"s3Location": {"uri": media.url}}
    if media.file_id:
        raise FormatError(f"{where}: Bedrock knows no uploaded files; send the data")
    raise FormatError(
        f"{where}: Bedrock takes media as data (a data: URL) or from S3 (s3://bucket/key); "
        "it fetches nothing from other addresses"
    )


def _format(media: Media, kind: _Kind, where: str) -> str:
    subtype = media.media_type.partition(";")[0].rpartition("/")[2].strip().lower()
    ending = (media.name or media.url).rpartition(".")[2].lower()
    found = _FORMATS.get((kind.kind, subtype)) or _FORMATS.get((kind.kind, ending))
    if not found and kind.kind == "image" and not media.media_type:
        found = next((name for sign, name in _SIGNS if media.data.startswith(sign)), None)
    if not found:
        known = ", ".join(kind.formats)
        raise FormatError(
            f"{where}: Bedrock takes the {kind.block} formats {known}; "
            f"this is {media.media_type or 'of no known type'}"
        )
    return found


def _document_name(media: Media, names: set[str]) -> str:
    """Converse wants a name of letters, digits, single spaces, hyphens, parentheses and brackets
    for each document, and no name twice."""
    stem = media.name.rpartition(".")[0] or media.name
    plain = " ".join(_NOT_IN_NAMES.sub(" ", stem).split())[: _MAX_NAME - 8] or "document"
    name, count = plain, 1
    while name in names:
        count += 1
        name = f"{plain} {count}"
    names.add(name)
    return name


def parsed(name: str, value: object, where: str) -> Media:
    """The media of a block. Raises FormatError where it has no source."""
    kind = _BY_BLOCK[name]
    block = an_object(value, where)
    source = an_object(block.get("source"), f"{where}.source")
    media_type = kind.formats.get(text_of(block, "format"), "")
    title = text_of(block, "name")
    if isinstance(source.get("bytes"), str):
        data = text_of(source, "bytes")
        return Media(kind=kind.kind, data=data, media_type=media_type, name=title)
    if source.get("s3Location") is not None:
        place = an_object(source["s3Location"], f"{where}.source.s3Location")
        uri = text_of(place, "uri")
        return Media(kind=kind.kind, url=uri, media_type=media_type, name=title)
    text = _document_text(source, f"{where}.source")
    data = b64encode(text.encode()).decode()
    return Media(kind=kind.kind, data=data, media_type=media_type or "text/plain", name=title)


def _document_text(source: Mapping[str, object], where: str) -> str:
    """A document that is only a text, or several."""
    if isinstance(source.get("text"), str):
        return text_of(source, "text")
    if source.get("content") is None:
        wrong(where, "bytes, s3Location, text or content")
    parts = objects(source["content"], f"{where}.content")
    return "\n".join(text_of(part, "text") for _, part in parts)
