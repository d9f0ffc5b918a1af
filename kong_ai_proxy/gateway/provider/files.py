"""The stand-in provider's files: kept on disk, without names there, until it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kong_ai_proxy.gateway.provider.blob import Blob, send_blob
from kong_ai_proxy.gateway.provider.form import form_of
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    json_response,
    new_id,
    now,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf, page

PURPOSES: Final = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
RULES: Final[dict[str, Rule]] = {
    "expires_after": Rule("an object"),
    "purpose": Rule("a string", options=PURPOSES),
}
_EXPIRY: Final[dict[str, Rule]] = {
    "anchor": Rule("a string", options=("created_at",)),
    "seconds": Rule("an integer", 3600, 2592000),
}
_MONTH: Final = 2592000  # "files with purpose=batch expire after 30 days"
_MOST_BYTES: Final = 4 * 1024**3  # of all files together; the oldest go
_MOST_BATCH_BYTES: Final = 200 * 1024 * 1024
_LINES_FOR: Final = {"batch": "Batch", "fine-tune": "Fine-tuning"}
_PAGE: Final = 10000


@dataclass(frozen=True)
class StoredFile:
    """A file and what the API says about it."""

    id: str
    filename: str
    purpose: str
    blob: Blob
    created_at: int
    expires_at: int | None

    def shown(self) -> Json:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.blob.size,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Files:
    """The files of one provider, within a number and a sum of bytes."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._shelf: Shelf[StoredFile] = Shelf(
            "No such File object: {id}",
            param="id",
            most_bytes=most_bytes,
            weigh=lambda file: file.blob.size,
            drop=lambda file: file.blob.close(),
        )

    def add(
        self, filename: str, purpose: str, blob: Blob, expires_in: int | None = None
    ) -> StoredFile:
        """Keep a file; its blob is closed when it goes."""
        created = now()
        expires = None if expires_in is None else created + expires_in
        return self._shelf.add(
            StoredFile(new_id("file-"), filename, purpose, blob, created, expires)
        )

    def get(self, key: str) -> StoredFile:
        """Raises ApiError 404."""
        return self._shelf.get(key)

    def remove(self, key: str) -> None:
        """Raises ApiError 404."""
        self._shelf.remove(key)

    def page(self, query: Mapping[str, str]) -> Json:
        """The list a query asks for. Raises ApiError 400."""
        purpose = query.get("purpose")
        found = [file for file in self._shelf if purpose is None or file.purpose == purpose]
        return page(query, found, default=_PAGE, most=_PAGE)

    async def close(self, _: web.Application) -> None:
        """Forget all files."""
        self._shelf.clear()


FILES: Final = web.AppKey("files", Files)


def set_up(app: web.Application) -> None:
    """Give the application its files, for as long as it runs."""
    app[FILES] = Files()
    app.on_cleanup.append(app[FILES].close)


def expiry(expires_after: Json | None, param: str = "expires_after") -> int | None:
    """The seconds of an `expires_after`. Raises ApiError 400."""
    if expires_after is None:
        return None
    required = ("anchor", "seconds")
    return int(check_params(expires_after, _EXPIRY, required, param)["seconds"])


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/files"""
    async with form_of(request) as form:
        body = check_params(form.params(RULES, ("file",)), RULES, ("purpose",))
        seconds = expiry(_with_number(body.get("expires_after")))
        default = _MONTH if body["purpose"] == "batch" else None
        upload = form.take("file")
    try:
        _check(upload.filename, upload.blob, body["purpose"])
    except ApiError:
        upload.blob.close()
        raise
    stored = request.app[FILES].add(
        upload.filename, body["purpose"], upload.blob, default if seconds is None else seconds
    )
    return json_response(stored.shown())


def _with_number(expires_after: Any) -> Any:
    """A form has only texts."""
    seconds = str(expires_after.get("seconds", "")) if isinstance(expires_after, dict) else ""
    if seconds.isascii() and seconds.isdigit():
        return {**expires_after, "seconds": int(seconds[:18])}
    return expires_after


def _check(filename: str, blob: Blob, purpose: str) -> None:
    if not blob.size:
        raise ApiError(400, "File is empty.", param="file", code="empty_file")
    if purpose in _LINES_FOR and not filename.endswith(".jsonl"):
        message = f"Invalid file format for {_LINES_FOR[purpose]} API. Must be .jsonl"
        raise ApiError(400, message, param="file")
    if purpose == "batch" and blob.size > _MOST_BATCH_BYTES:
        message = f"The Batch API supports files of at most {_MOST_BATCH_BYTES} bytes."
        raise ApiError(400, message, param="file")


async def listed(request: web.Request) -> web.StreamResponse:
    """GET /v1/files"""
    return json_response(request.app[FILES].page(request.query))


def _named(request: web.Request) -> StoredFile:
    return request.app[FILES].get(request.match_info["id"])


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{id}"""
    return json_response(_named(request).shown())


async def content(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{id}/content"""
    file = _named(request)
    return await send_blob(request, file.blob, "application/octet-stream", file.filename)


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/files/{id}"""
    key = request.match_info["id"]
    request.app[FILES].remove(key)
    return json_response({"id": key, "object": "file", "deleted": True})


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/files", create),
    ("GET", "/v1/files", listed),
    ("GET", "/v1/files/{id}", retrieve),
    ("GET", "/v1/files/{id}/content", content),
    ("DELETE", "/v1/files/{id}", delete),
)
