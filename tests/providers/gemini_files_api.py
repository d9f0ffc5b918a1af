"""Gemini's Files API and batches: https://ai.google.dev/api/files, https://ai.google.dev/api/batch-api.

Files are kept; what is uploaded comes by Google's resumable protocol, whose rules are checked:
https://developers.google.com/photos/library/guides/resumable-uploads describes it. The lines of a
batch's input are checked as single requests are. A batch waits until a test ends it:

    upstream.finish("batches/...", {"a": Turn(text="Four.")})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from google.genai import batches as sdk_batches
from google.genai import types
from google.genai._common import BaseModel
from typing_extensions import override

from tests.providers.gemini_api import (
    Gemini,
    _answer,
    _EmbedContent,
    _error,
    _made,
    _texts,
    _valid,
)
from tests.providers.strict import parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Turn,
    json_reply,
    route,
    vector,
)

GRANULARITY: Final = 8 << 20
_CREATED: Final = "2026-08-20T18:37:24.100435123Z"
_ENDED: Final = "2026-08-20T19:04:00Z"
_EXPIRES: Final = "2026-08-22T18:37:24.100435Z"
_NAME: Final = re.compile(r"files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_TYPE: Final = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"


class _NewFile(BaseModel):
    """https://ai.google.dev/api/files#request-body"""

    file: types.File


class _InputConfig(BaseModel):
    file_name: str | None = None
    requests: Any = None


class _NewBatch(BaseModel):
    """https://ai.google.dev/api/batch-api#request-body"""

    display_name: str
    input_config: _InputConfig
    priority: str | None = None
    webhook_config: Any = None


class _CreateBatch(BaseModel):
    batch: _NewBatch


class _Line(BaseModel):
    """https://ai.google.dev/gemini-api/docs/batch-api#input-file"""

    key: str
    request: dict[str, Any]


@dataclass
class _Session:
    file: Json
    size: int | None
    content: bytearray


class GeminiFiles(Gemini):
    """generativelanguage.googleapis.com with `/upload/v1beta/files`, `/v1beta/files` and batches.

    files: what it holds, by name; contents: their bytes; batches: operations by name.
    """

    ROUTES = (
        (route("POST", "/upload/v1beta/files"), "upload"),
        (route("GET", "/v1beta/files/{number}:download"), "redirect"),
        (route("GET", "/download/v1beta/files/{number}:download"), "download"),
        (route("GET|DELETE", "/v1beta/files/{number}"), "file"),
        (route("GET", "/v1beta/files"), "list_files"),
        (route("POST", "/v1beta/models/{model}:batchGenerateContent"), "batch_content"),
        (route("POST", "/v1beta/models/{model}:asyncBatchEmbedContent"), "batch_embed"),
        (route("POST", "/v1beta/batches/{number}:cancel"), "cancel"),
        (route("GET|DELETE", "/v1beta/batches/{number}"), "batch"),
        (route("GET", "/v1beta/batches"), "list_batches"),
        *Gemini.ROUTES,
    )

    def __init__(self, called: str = "standin") -> None:
        """`called` is what names of batches begin with."""
        super().__init__()
        self._called = called
        self.files: dict[str, Json] = {}
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, Json] = {}
        self._inputs: dict[str, list[Json]] = {}
        self._sessions: dict[str, _Session] = {}

    # ---- uploads

    @override
    def authorize(self, request: Recorded) -> None:
        """The URL that an upload's pieces go to is a credential itself."""
        if request.params.get("upload_id") not in self._sessions:
            super().authorize(request)

    def upload(self, request: Recorded, turn: Turn) -> Reply:
        """POST /upload/v1beta/files"""
        command = request.headers.get("x-goog-upload-command")
        if command == "start":
            return self._start(request)
        session = self._sessions.get(request.params.get("upload_id", ""))
        if session is None:
            raise RefusedError("upload_id: no such upload", 404)
        if command not in ("upload", "upload, finalize"):
            raise RefusedError(f"X-Goog-Upload-Command: {command}")
        if request.headers.get("x-goog-upload-offset") != str(len(session.content)):
            raise RefusedError(f"X-Goog-Upload-Offset: expected {len(session.content)}")
        session.content += request.body
        if command == "upload":
            if len(request.body) % GRANULARITY:
                raise RefusedError(f"expected a multiple of {GRANULARITY} bytes")
            return Reply(headers={"x-goog-upload-status": "active"})
        return self._finalize(session)

    def _start(self, request: Recorded) -> Reply:
        headers = request.headers
        if headers.get("x-goog-upload-protocol") != "resumable":
            raise RefusedError("X-Goog-Upload-Protocol: expected resumable")
        if not headers.get("x-goog-upload-header-content-type"):
            raise RefusedError("X-Goog-Upload-Header-Content-Type is required")
        file = _valid(_NewFile, parsed(request.body)).file
        number = f"session{len(self._sessions)}"
        name = file.name or f"files/standin{len(self._sessions)}"
        if not _NAME.fullmatch(name) or name in self.files:
            raise RefusedError(f"CreateFileRequest.file.name: {name}")
        kept: Json = {
            "name": name,
            "mimeType": headers["x-goog-upload-header-content-type"],
            "createTime": _CREATED,
            "updateTime": _CREATED,
            "expirationTime": _EXPIRES,
            "uri": f"https://generativelanguage.googleapis.com/v1beta/{name}",
            "state": "ACTIVE",
            "source": "UPLOADED",
        }
        if file.display_name:
            kept["displayName"] = file.display_name
        told = headers.get("x-goog-upload-header-content-length")
        self._sessions[number] = _Session(kept, int(told) if told else None, bytearray())
        key = f"&key={request.params['key']}" if "key" in request.params else ""
        url = f"{self.url}/upload/v1beta/files?upload_id={number}&upload_protocol=resumable{key}"
        return Reply(
            headers={
                "x-goog-upload-url": url,
                "x-goog-upload-control-url": url,
                "x-goog-upload-status": "active",
                "x-goog-upload-chunk-granularity": str(GRANULARITY),
            }
        )

    def _finalize(self, session: _Session) -> Reply:
        size = len(session.content)
        if session.size not in (None, size):
            raise RefusedError(f"expected {session.size} bytes, got {size}")
        if not size:
            raise RefusedError("the file is empty")
        file = session.file
        file["sizeBytes"] = str(size)
        self.files[file["name"]] = _made(types.File, file)
        self.contents[file["name"]] = bytes(session.content)
        body = orjson.dumps({"file": file})
        return Reply(body, headers={"x-goog-upload-status": "final"})

    # ---- files

    def file(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """GET tells it, DELETE deletes it."""
        found = self._file(number)
        if request.method == "GET":
            return json_reply(found)
        del self.files[found["name"]], self.contents[found["name"]]
        return json_reply({})

    def _file(self, number: str) -> Json:
        if f"files/{number}" not in self.files:
            text = f"You do not have permission to access the File {number} or it may not exist."
            raise RefusedError(text, 403)
        return self.files[f"files/{number}"]

    def list_files(self, request: Recorded, turn: Turn) -> Reply:
        """GET /v1beta/files"""
        page, following = _page(request, list(self.files.values()), 10)
        value = {"files": page, "nextPageToken": following} if following else {"files": page}
        _made(types.ListFilesResponse, value)
        return json_reply(value if page else {})

    def redirect(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """The file's own address."""
        location = f"{self.url}/download/v1beta/files/{number}:download?alt=media"
        return Reply(status=302, headers={"Location": location})

    def download(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """GET /download/v1beta/files/{number}:download?alt=media, of what Google has made only."""
        found = self._file(number)
        if request.params.get("alt") != "media":
            raise RefusedError("alt: expected media")
        if found["source"] != "GENERATED":
            raise RefusedError("Only generated files can be downloaded.")
        return Reply(self.contents[found["name"]], content_type="application/octet-stream")

    # ---- batches

    def batch_content(self, request: Recorded, turn: Turn, model: str) -> Reply:
        """:batchGenerateContent"""
        batch = self._asked(request)
        if batch.input_config.requests is not None:
            inline = parsed(request.body)["batch"].get("inputConfig")
            inline = inline or parsed(request.body)["batch"]["input_config"]
            lines = [
                {"key": each.get("metadata", {}).get("key", ""), "request": each["request"]}
                for each in inline["requests"]["requests"]
            ]
        else:
            lines = self._lines(batch.input_config)
        for line in lines:
            self.check(line["request"], model)
        return self._make(batch, model, lines)

    def batch_embed(self, request: Recorded, turn: Turn, model: str) -> Reply:
        """:asyncBatchEmbedContent"""
        batch = self._asked(request)
        lines = self._lines(batch.input_config)
        for line in lines:
            _valid(_EmbedContent, line["request"])
        return self._make(batch, model, lines)

    def _asked(self, request: Recorded) -> Any:
        batch = _valid(_CreateBatch, parsed(request.body)).batch
        source = batch.input_config
        if (source.file_name is None) == (source.requests is None):
            raise RefusedError("batch.input_config: expected file_name or requests")
        return batch

    def _lines(self, source: Any) -> list[Json]:
        self._file(source.file_name.removeprefix("files/"))
        lines = []
        for line in self.contents[source.file_name].split(b"\n"):
            if line:
                _valid(_Line, parsed(line))
                lines.append(parsed(line))
        return lines

    def _make(self, batch: Any, model: str, lines: list[Json]) -> Reply:
        name = f"batches/{self._called}{len(self.batches)}"
        count = str(len(lines))
        metadata: Json = {
            "@type": _TYPE,
            "name": name,
            "model": f"models/{model}",
            "displayName": batch.display_name,
            "createTime": _CREATED,
            "updateTime": _CREATED,
            "batchStats": {"requestCount": count, "pendingRequestCount": count},
            "state": "BATCH_STATE_PENDING",
        }
        self.batches[name] = {"name": name, "metadata": metadata}
        self._inputs[name] = lines
        return self._told(name)

    def _told(self, name: str) -> Reply:
        value = self.batches[name]
        types.BatchJob.model_validate(sdk_batches._BatchJob_from_mldev(value))
        return json_reply(value)

    def finish(self, name: str, turns: Mapping[str, Turn]) -> None:
        """End a batch well; a Turn of a status above 399 is an error. Answers come in an order of
        their own: the last first."""
        operation = self.batches[name]
        metadata = operation["metadata"]
        model = metadata["model"].removeprefix("models/")
        lines = [_line(each, turns[each["key"]], model) for each in reversed(self._inputs[name])]
        failed = sum("error" in line for line in lines)
        output = f"files/batch-{name.removeprefix('batches/')}"
        self.contents[output] = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        self.files[output] = _made(
            types.File,
            {
                "name": output,
                "mimeType": "application/json",
                "sizeBytes": str(len(self.contents[output])),
                "createTime": _ENDED,
                "updateTime": _ENDED,
                "expirationTime": _EXPIRES,
                "uri": f"https://generativelanguage.googleapis.com/v1beta/{output}",
                "downloadUri": f"https://generativelanguage.googleapis.com/v1beta/{output}"
                ":download?alt=media",
                "state": "ACTIVE",
                "source": "GENERATED",
            },
        )
        metadata["state"] = "BATCH_STATE_SUCCEEDED"
        metadata["endTime"] = metadata["updateTime"] = _ENDED
        metadata["output"] = {"responsesFile": output}
        metadata["batchStats"] = {"requestCount": str(len(lines))}
        done = len(lines) - failed
        for count, member in ((done, "successfulRequestCount"), (failed, "failedRequestCount")):
            if count:
                metadata["batchStats"][member] = str(count)
        operation["done"] = True
        operation["response"] = {"@type": f"{_TYPE}Output", "responsesFile": output}

    def batch(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """GET tells it, DELETE deletes it."""
        name = self._batch(number)
        if request.method == "GET":
            return self._told(name)
        del self.batches[name]
        return json_reply({})

    def _batch(self, number: str) -> str:
        if f"batches/{number}" not in self.batches:
            raise RefusedError(f"Batch batches/{number} not found.", 404)
        return f"batches/{number}"

    def cancel(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """POST :cancel, whose effect comes later."""
        self._batch(number)
        return json_reply({})

    def list_batches(self, request: Recorded, turn: Turn) -> Reply:
        """GET /v1beta/batches"""
        page, following = _page(request, list(self.batches.values()), 50)
        value = {"operations": page, "nextPageToken": following}
        return json_reply({member: each for member, each in value.items() if each})


def _page(request: Recorded, objects: list[Json], usual: int) -> tuple[list[Json], str]:
    params = request.params
    if params.keys() - {"pageSize", "pageToken", "key"}:
        raise RefusedError(f"Invalid JSON payload received. Unknown name: {params}")
    size, start = int(params.get("pageSize", usual)), int(params.get("pageToken", 0))
    if not 1 <= size <= 100:
        raise RefusedError("page_size: must be from 1 to 100")
    following = str(start + size) if start + size < len(objects) else ""
    return objects[start : start + size], following


def _line(line: Json, turn: Turn, model: str) -> Json:
    if turn.status >= 400:
        error = _error(turn.status, turn.message)["error"]
        return {"key": line["key"], "error": {"code": error["code"], "message": error["message"]}}
    if "content" in line["request"]:
        given = _valid(_EmbedContent, line["request"])
        size = given.output_dimensionality or 8
        answer: Json = {"embedding": {"values": vector(_texts(given.content), size)}}
    else:
        answer = _made(types.GenerateContentResponse, _answer(turn, model))
    return {"key": line["key"], "response": answer}
