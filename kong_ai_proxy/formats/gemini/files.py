"""Files of the Gemini API: https://ai.google.dev/api/files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import an_object, object_of, objects_of, text_of
from kong_ai_proxy.formats.gemini.times import number, seconds

_STATUSES = {"PROCESSING": "uploaded", "FAILED": "error"}


class StoredFile(NamedTuple):
    """What Google tells of a file."""

    name: str
    """Without "files/"."""
    display_name: str
    size: int
    """In bytes; 0 where it is not told yet."""
    created_at: int
    expires_at: int | None
    is_generated: bool
    """Whether Google made it, so that it may be downloaded."""
    status: str
    """uploaded, processed or error."""
    error: str | None


def render_start(name: str, display_name: str) -> dict[str, object]:
    """The body that an upload starts with. `name` has at most 40 characters, lower-case letters,
    digits and dashes within; `display_name` 512 of any kind."""
    return {"file": {"name": f"files/{name}", "displayName": display_name}}


def parse_uploaded(value: Mapping[str, object]) -> StoredFile:
    """The answer to the last piece of an upload. Raises FormatError."""
    return parse_file(an_object(value.get("file"), "file"))


def parse_file(value: Mapping[str, object]) -> StoredFile:
    """A file. Raises FormatError."""
    prefix, _, name = text_of(value, "name").partition("/")
    if prefix != "files" or not name:
        raise FormatError("name: expected files/...")
    return StoredFile(
        name=name,
        display_name=text_of(value, "displayName"),
        size=number(value, "sizeBytes") or 0,
        created_at=seconds(value, "createTime") or 0,
        expires_at=seconds(value, "expirationTime"),
        is_generated=text_of(value, "source") == "GENERATED",
        status=_STATUSES.get(text_of(value, "state"), "processed"),
        error=text_of(object_of(value, "error"), "message") or None,
    )


def parse_files(value: Mapping[str, object]) -> tuple[list[StoredFile], str]:
    """A page of files, and the token of the next one; "" for the last. Raises FormatError."""
    files = [parse_file(each) for each in objects_of(value, "files")]
    return files, text_of(value, "nextPageToken")
