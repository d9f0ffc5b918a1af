"""Forms with files: each file goes to disk while it arrives, each field is checked as JSON is."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from kong_ai_proxy.gateway.provider.blob import Blob
from kong_ai_proxy.gateway.provider.http import (
    SEEN,
    ApiError,
    Json,
    Rule,
    missing,
    raise_on_demand,
    wrong_type,
)
from kong_ai_proxy.gateway.provider.multipart import End, Parser, Part, boundary_of, malformed

MOST_FILE_BYTES: Final = 512 * 1024 * 1024  # "Individual files can be up to 512 MB"
_MOST_TEXT_BYTES: Final = 1024 * 1024
_MOST_PARTS: Final = 256
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)$")


@dataclass
class Upload:
    """A file of a form."""

    field: str
    filename: str
    content_type: str
    blob: Blob


@dataclass
class Form:
    """The parts of a form: text fields in their order, and files."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[Upload] = field(default_factory=list)

    def uploads(self, name: str) -> list[Upload]:
        """The files of `name` and of `name[]`."""
        return [upload for upload in self.files if upload.field in (name, f"{name}[]")]

    def take(self, name: str) -> Upload:
        """The one file of that name; it is the caller's to close. Raises ApiError 400."""
        found = self.uploads(name)
        if not found:
            raise missing(name)
        self.files.remove(found[0])
        return found[0]

    def params(self, rules: Mapping[str, Rule], files: tuple[str, ...] = ()) -> Json:
        """The fields as JSON would have them, by the rules' types. Raises ApiError 400.

        `a[]` is an item of a list, `a[b]` a member of an object, as OpenAI's clients write them.
        `files` names the fields that must be files.
        """
        body: Json = {}
        for name, value in self.fields:
            if name.removesuffix("[]") in files:
                param = name.removesuffix("[]")
                message = f"Invalid type for '{param}': expected a file, but got a string instead."
                raise ApiError(400, message, param=param, code="invalid_type")
            _put(body, name, value)
        unknown = [up for up in self.files if up.field.removesuffix("[]") not in files]
        if unknown:
            message = f"Unrecognized file argument supplied: {unknown[0].field}"
            raise ApiError(400, message)
        typed = {name: _typed(name, value, rules.get(name)) for name, value in body.items()}
        raise_on_demand(typed.get("model"))
        return typed

    def close(self) -> None:
        """Give back the space of the files nobody took."""
        for upload in self.files:
            upload.blob.close()


@contextlib.asynccontextmanager
async def form_of(request: web.Request, most_file_bytes: int | None = None) -> AsyncIterator[Form]:
    """The form that a request brings. Raises ApiError 400, 413 or 415."""
    if request.content_type != "multipart/form-data":
        raise ApiError(
            415,
            f"Unsupported content type: '{request.content_type}'. This API method only accepts "
            "'multipart/form-data' requests, but you specified the header 'Content-Type: "
            f"{request.headers.get('Content-Type', '')}'.",
        )
    parser = Parser(boundary_of(request.headers["Content-Type"]))
    form = Form()
    filler = _Filler(form, MOST_FILE_BYTES if most_file_bytes is None else most_file_bytes)
    try:
        async for chunk in request.content.iter_any():
            SEEN.get().note(chunk)
            filler.feed(parser, chunk)
        parser.end()
        yield form
    finally:
        form.close()


class _Filler:
    """Puts what a parser finds into a form."""

    def __init__(self, form: Form, most_file_bytes: int) -> None:
        self._form = form
        self._most = most_file_bytes
        self._parts = 0
        self._name = ""
        self._upload: Upload | None = None
        self._text = bytearray()
        self._texts = 0

    def feed(self, parser: Parser, chunk: bytes) -> None:
        for event in parser.feed(chunk):
            if isinstance(event, Part):
                self._begin(event)
            elif isinstance(event, End):
                self._finish()
            else:
                self._add(event)

    def _begin(self, part: Part) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise malformed(f"more than {_MOST_PARTS} parts")
        self._name = part.name
        self._upload = None
        if part.filename is not None:
            self._upload = Upload(part.name, part.filename, part.content_type, Blob())
            self._form.files.append(self._upload)

    def _add(self, piece: bytes) -> None:
        if self._upload is None:
            self._text += piece
            self._texts += len(piece)
            if self._texts > _MOST_TEXT_BYTES:
                raise ApiError(
                    413, f"The form's text fields are larger than {_MOST_TEXT_BYTES} bytes."
                )
            return
        self._upload.blob.write(piece)
        if self._upload.blob.size > self._most:
            raise ApiError(
                413, f"The file is larger than the {self._most} bytes allowed.", param=self._name
            )

    def _finish(self) -> None:
        if self._upload is None:
            try:
                text = self._text.decode()
            except UnicodeDecodeError:
                raise malformed(f"the field '{self._name}' is not UTF-8") from None
            self._form.fields.append((self._name, text))
            self._text.clear()


def _put(body: Json, name: str, value: str) -> None:
    """Place a field by the brackets in its name."""
    match = _KEY.match(name)
    steps = re.findall(r"\[([^\[\]]*)\]", match[2]) if match else []
    key, place = (match[1] if match else name), body
    for step in steps:
        if step == "":
            items = place.setdefault(key, [])
            if not isinstance(items, list):
                raise wrong_type(key, "an array", items)
            items.append(value)
            return
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise wrong_type(key, "an object", place)
        key = step
    if key in place:
        raise ApiError(400, f"Duplicate parameter: '{name}'.", param=name)
    place[key] = value


def _typed(name: str, value: Any, rule: Rule | None) -> Any:
    """A text as the rule's type; text that is not of that type stays text and fails its check."""
    if not isinstance(value, str) or rule is None:
        return value
    if rule.kind == "a boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    if rule.kind in ("an integer", "a decimal"):
        with contextlib.suppress(ValueError):
            return int(value)
        with contextlib.suppress(ValueError):
            return float(value) if rule.kind == "a decimal" else value
    return value
