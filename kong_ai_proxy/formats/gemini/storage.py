"""Objects in Cloud Storage: https://cloud.google.com/storage/docs/json_api/v1/objects, and
resumable uploads: https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import objects_of, text_of
from kong_ai_proxy.formats.gemini.times import number, seconds

_STORED = re.compile(r"bytes=0-([0-9]{1,18})")


class StoredObject(NamedTuple):
    """What Cloud Storage tells of an object."""

    name: str
    size: int
    """In bytes."""
    created_at: int


def parse_object(value: Mapping[str, object]) -> StoredObject:
    """An object. Raises FormatError."""
    name = text_of(value, "name")
    if not name:
        raise FormatError("name: expected the object's name")
    return StoredObject(name, number(value, "size") or 0, seconds(value, "timeCreated") or 0)


def parse_objects(value: Mapping[str, object]) -> tuple[list[StoredObject], str]:
    """A page of objects, and the token of the next one; "" for the last. Raises FormatError."""
    return [parse_object(each) for each in objects_of(value, "items")], text_of(
        value, "nextPageToken"
    )


def content_range(first: int, length: int, *, is_last: bool) -> str:
    """What the header content-range says of a piece, the first byte of which has the number
    `first`. Only the last piece tells the whole size."""
    total = str(first + length) if is_last else "*"
    return f"bytes {first}-{first + length - 1}/{total}" if length else f"bytes */{total}"


def stored(told: str) -> int:
    """How many bytes have been stored, as the header range of an answer 308 says; 0 without it."""
    found = _STORED.fullmatch(told)
    return int(found[1]) + 1 if found else 0
