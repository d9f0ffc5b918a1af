"""Files in OpenAI's format: https://platform.openai.com/docs/api-reference/files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kong_ai_proxy.formats.fields import wrong
from kong_ai_proxy.formats.files import FileObject

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""What clients upload files for."""

MAX_LISTED = 10_000

_SECONDS = re.compile(r"[0-9]{1,9}")
_MIN_LIFE, _MAX_LIFE = 3600, 2_592_000
_EXPIRES = "expires_after"


class ListQuery(NamedTuple):
    """Which part of a list is wanted: of files or, with another greatest `limit`, of batches."""

    limit: int
    after: str = ""
    """The id of the last object of the page before; "" for the first page."""
    purpose: str = ""
    """"" for all."""
    order: str = ""
    """asc for the oldest first, desc for the newest; "" where nobody said."""

    def dropped(self, kept: str = "") -> tuple[str, ...]:
        """The parameters that a provider has not: `order`, unless it is the one that its lists
        have, "" where they have neither."""
        return () if self.order in ("", kept) else ("order",)


def parse_purpose(fields: Mapping[str, str]) -> str:
    """The purpose in an upload's fields. Raises FormatError."""
    purpose = fields.get("purpose", "")
    if purpose not in PURPOSES:
        missing = "" if purpose else "; it is missing"
        wrong("purpose", f"one of {', '.join(PURPOSES)}{missing}")
    return purpose


def parse_expiry(fields: Mapping[str, str]) -> int | None:
    """After how many seconds an uploaded file is to be deleted, None for not at all. Raises
    FormatError."""
    anchor, seconds = fields.get(f"{_EXPIRES}[anchor]"), fields.get(f"{_EXPIRES}[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        wrong(f"{_EXPIRES}[anchor]", "created_at")
    if not _SECONDS.fullmatch(seconds or "") or not _MIN_LIFE <= int(seconds or 0) <= _MAX_LIFE:
        wrong(f"{_EXPIRES}[seconds]", f"a whole number from {_MIN_LIFE} to {_MAX_LIFE}")
    return int(seconds or 0)


def parse_list(
    query: Mapping[str, str], *, most: int = MAX_LISTED, usual: int = MAX_LISTED
) -> ListQuery:
    """What a request for a list asks. Raises FormatError."""
    limit = query.get("limit", str(usual))
    if not _SECONDS.fullmatch(limit) or not 1 <= int(limit) <= most:
        wrong("limit", f"a whole number from 1 to {most}")
    order = query.get("order", "")
    if order not in ("", "asc", "desc"):
        wrong("order", "asc or desc")
    return ListQuery(int(limit), query.get("after", ""), query.get("purpose", ""), order)


def render_file(file: FileObject) -> dict[str, object]:
    """A file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
        "status_details": file.status_details,
    }


def render_files(files: Iterable[FileObject], *, has_more: bool) -> dict[str, object]:
    """A page of a list of files."""
    return page([render_file(file) for file in files], has_more=has_more)


def page(objects: list[dict[str, object]], *, has_more: bool) -> dict[str, object]:
    """A page of a list of objects."""
    return {
        "object": "list",
        "data": objects,
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
        "has_more": has_more,
    }


def render_deleted(told: str) -> dict[str, object]:
    """What a client gets for a file that is no longer there."""
    return {"id": told, "object": "file", "deleted": True}
