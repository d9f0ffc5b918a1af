"""Cloud Storage's JSON API, and Vertex AI's batch prediction jobs, which read and write there.

https://cloud.google.com/storage/docs/json_api/v1, resumable uploads after
https://cloud.google.com/storage/docs/performing-resumable-uploads, and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs.
The SDK has no types for Storage: what is checked there is written from those pages. The lines of a
job's input are checked as single requests are, and the job with the SDK's own converter. A job
waits until a test ends it:

    jobs.finish(name, {"two and two?": Turn(text="Four.")})  # by the prompt's text
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import orjson
from google.genai import batches as sdk_batches
from google.genai import types
from google.genai._common import BaseModel
from typing_extensions import override

from tests.providers.gemini_api import Vertex, _answer, _error, _made, _valid
from tests.providers.strict import parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_reply,
    require_bearer,
    route,
)

_CHUNK: Final = 256 << 10
_CREATED: Final = "2026-08-20T18:37:24.100Z"
_RANGE: Final = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")
_LIST: Final = {"prefix", "maxResults", "pageToken"}
# https://cloud.google.com/resource-manager/docs/labels-overview#requirements
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")


class _Metadata(BaseModel):
    """https://cloud.google.com/storage/docs/json_api/v1/objects#resource, what may be set."""

    name: str | None = None
    content_type: str | None = None
    metadata: dict[str, str] | None = None


class Storage(Upstream):
    """storage.googleapis.com. `buckets` are those that there are; `objects` their contents by
    bucket and name."""

    name = "storage"
    ROUTES: ClassVar[Routes] = (
        (route("POST|PUT", "/upload/storage/v1/b/{bucket}/o"), "upload"),
        (route("GET|DELETE", "/storage/v1/b/{bucket}/o/{object}"), "one"),
        (route("GET", "/storage/v1/b/{bucket}/o"), "all"),
    )

    def __init__(self, *buckets: str) -> None:
        super().__init__()
        self.buckets = buckets
        self.objects: dict[tuple[str, str], bytes] = {}
        self.types: dict[tuple[str, str], str] = {}
        self.keeps: int | None = None
        """Bytes of a piece that are kept at most, as may happen."""
        self._sessions: dict[str, tuple[tuple[str, str], bytearray]] = {}

    @override
    def authorize(self, request: Recorded) -> None:
        """A session's URI is a credential itself."""
        if request.params.get("upload_id") not in self._sessions:
            require_bearer(request, "Anonymous caller does not have storage access.")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://cloud.google.com/storage/docs/json_api/v1/status-codes; plain text for media."""
        if request.params.get("alt") == "media":
            return Reply(message.encode(), content_type="text/html; charset=UTF-8", status=status)
        details = [{"message": message, "domain": "global", "reason": "invalid"}]
        value = {"error": {"code": status, "message": message, "errors": details}}
        return json_reply(value, status)

    def put(self, uri: str, content: bytes) -> None:
        """Have an object."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self.objects[bucket, name] = content
        self.types[bucket, name] = "application/octet-stream"

    def content(self, uri: str) -> bytes:
        """What an object holds. Raises RefusedError."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        if (bucket, name) not in self.objects:
            raise RefusedError(f"{uri} does not exist")
        return self.objects[bucket, name]

    def upload(self, request: Recorded, turn: Turn, bucket: str) -> Reply:
        """POST starts, PUT brings a piece."""
        self._check_bucket(bucket)
        if request.params.get("uploadType") != "resumable":
            raise RefusedError("uploadType: expected resumable")
        if request.method == "POST":
            return self._start(request, bucket)
        session = self._sessions.get(request.params.get("upload_id", ""))
        if session is None:
            raise RefusedError("upload_id: no such session", 404)
        return self._piece(request, *session)

    def _check_bucket(self, bucket: str) -> None:
        if bucket not in self.buckets:
            raise RefusedError("The specified bucket does not exist.", 404)

    def _start(self, request: Recorded, bucket: str) -> Reply:
        given = _valid(_Metadata, parsed(request.body)) if request.body else _Metadata()
        name = request.params.get("name") or given.name
        if not name or len(name.encode()) > 1024:
            raise RefusedError("Required: name")
        if request.headers.get("x-upload-content-type") != given.content_type:
            raise RefusedError("X-Upload-Content-Type: expected the object's contentType")
        number = f"session{len(self._sessions)}"
        self._sessions[number] = ((bucket, name), bytearray())
        self.types[bucket, name] = given.content_type or "application/octet-stream"
        query = f"uploadType=resumable&name={name}&upload_id={number}"
        url = f"{self.url}/upload/storage/v1/b/{bucket}/o?{query}"
        return Reply(headers={"location": url, "x-guploader-uploadid": number})

    def _piece(self, request: Recorded, key: tuple[str, str], content: bytearray) -> Reply:
        found = _RANGE.fullmatch(request.headers.get("content-range", ""))
        if found is None or found["first"] is None:
            raise RefusedError("content-range: expected bytes first-last/total")
        first, last, length = int(found["first"]), int(found["last"]), len(request.body)
        if first != len(content) or last - first + 1 != length:
            raise RefusedError(f"content-range: {found[0]}, expected from {len(content)} on")
        is_last = found["total"] != "*"
        if not is_last and length % _CHUNK:
            raise RefusedError(f"expected a multiple of {_CHUNK} bytes")
        if is_last and int(found["total"]) != first + length:
            raise RefusedError(f"content-range: {found[0]}: wrong total")
        kept = request.body[: self.keeps]
        content += kept
        if not is_last or len(kept) < length:
            headers = {"range": f"bytes=0-{len(content) - 1}"} if content else {}
            return Reply(status=308, headers=headers)
        self.objects[key] = bytes(content)
        return json_reply(self._told(key))

    def _told(self, key: tuple[str, str]) -> Json:
        bucket, name = key
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/1",
            "name": name,
            "bucket": bucket,
            "generation": "1",
            "contentType": self.types[key],
            "storageClass": "STANDARD",
            "size": str(len(self.objects[key])),
            "timeCreated": _CREATED,
            "updated": _CREATED,
        }

    def one(self, request: Recorded, turn: Turn, bucket: str, object: str) -> Reply:  # noqa: A002
        """GET tells it, or with alt=media its content; DELETE deletes it."""
        self._check_bucket(bucket)
        key = bucket, object
        if key not in self.objects:
            raise RefusedError(f"No such object: {bucket}/{object}", 404)
        if request.method == "DELETE":
            del self.objects[key]
            return Reply(status=204)
        if request.params.get("alt") == "media":
            return Reply(self.objects[key], content_type=self.types[key])
        return json_reply(self._told(key))

    def all(self, request: Recorded, turn: Turn, bucket: str) -> Reply:
        """GET lists by name."""
        self._check_bucket(bucket)
        params = request.params
        if params.keys() - _LIST:
            raise RefusedError(f"Unknown name: {params.keys() - _LIST}")
        size, start = int(params.get("maxResults", 1000)), int(params.get("pageToken", 0))
        if not 1 <= size <= 1000:
            raise RefusedError("maxResults: must be from 1 to 1000")
        keys = [
            key
            for key in sorted(self.objects)
            if key[0] == bucket and key[1].startswith(params.get("prefix", ""))
        ]
        value: Json = {"kind": "storage#objects"}
        if keys[start : start + size]:
            value["items"] = [self._told(key) for key in keys[start : start + size]]
        if start + size < len(keys):
            value["nextPageToken"] = str(start + size)
        return json_reply(value)


class _Uris(BaseModel):
    uris: list[str]


class _Input(BaseModel):
    instances_format: str
    gcs_source: _Uris


class _Prefix(BaseModel):
    output_uri_prefix: str


class _Output(BaseModel):
    predictions_format: str
    gcs_destination: _Prefix


class _NewJob(BaseModel):
    display_name: str
    model: str
    input_config: _Input
    output_config: _Output
    labels: dict[str, str] | None = None


class _Line(BaseModel):
    """The page on batches, "Prepare your inputs"."""

    request: dict[str, Any]


class VertexBatches(Vertex):
    """{region}-aiplatform.googleapis.com with batchPredictionJobs. `jobs` are those by name."""

    _JOBS = "/v1(?:beta1)?/projects/[^/]+/locations/us-central1/batchPredictionJobs"
    ROUTES = (
        (route("POST", _JOBS + "/{job}:cancel"), "cancel"),
        (route("GET|DELETE", _JOBS + "/{job}"), "job"),
        (route("GET|POST", _JOBS), "all_jobs"),
        *Vertex.ROUTES,
    )

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.jobs: dict[str, Json] = {}
        self._storage = storage

    def all_jobs(self, request: Recorded, turn: Turn) -> Reply:
        """POST makes one, GET lists them, the newest first."""
        if request.method == "POST":
            return self._create(request)
        params = request.params
        size, start = int(params.get("pageSize", 100)), int(params.get("pageToken") or 0)
        newest = list(reversed(self.jobs.values()))
        value: Json = {"batchPredictionJobs": newest[start : start + size]}
        if start + size < len(newest):
            value["nextPageToken"] = str(start + size)
        return json_reply(value if newest else {})

    def _create(self, request: Recorded) -> Reply:
        body = parsed(request.body)
        job = _valid(_NewJob, body)
        formats = job.input_config.instances_format, job.output_config.predictions_format
        if formats != ("jsonl", "jsonl"):
            raise RefusedError(f"formats: expected jsonl, not {formats}")
        model = job.model.removeprefix("publishers/google/models/")
        if model == job.model or "/" in model:
            raise RefusedError(f"model: {job.model}")
        if not job.output_config.gcs_destination.output_uri_prefix.startswith("gs://"):
            raise RefusedError("outputUriPrefix: expected gs://...")
        for uri in job.input_config.gcs_source.uris:
            for line in self._lines(uri):
                self._check_line(line, model)
        number = str(1000 + len(self.jobs))
        name = f"projects/1234567890/locations/us-central1/batchPredictionJobs/{number}"
        config = {"inputConfig": body["inputConfig"], "outputConfig": body["outputConfig"]}
        self.jobs[number] = {
            "name": name,
            "displayName": job.display_name,
            "model": job.model,
            **config,
            "state": "JOB_STATE_PENDING",
            "createTime": _CREATED,
            "updateTime": _CREATED,
            "modelVersionId": "1",
        }
        return self._told(number)

    def _lines(self, uri: str) -> list[Json]:
        lines = [parsed(each) for each in self._storage.content(uri).split(b"\n") if each]
        for line in lines:
            _valid(_Line, line)
        return lines

    def _check_line(self, line: Json, model: str) -> None:
        self.check(line["request"], model)
        labels = line["request"].get("labels", {})
        odd = [
            name
            for name, value in labels.items()
            if not _LABEL.fullmatch(name) or not _VALUE.fullmatch(value)
        ]
        if odd or len(labels) > 64:
            raise RefusedError(f"labels: {odd}")

    def _told(self, number: str) -> Reply:
        job = self.jobs[number]
        types.BatchJob.model_validate(sdk_batches._BatchJob_from_vertex(dict(job)))
        return json_reply(job)

    def finish(self, number: str, turns: Mapping[str, Turn]) -> None:
        """End a job well. `turns` by the text of the last message; a Turn of a status above 399 is
        an error. Answers come in an order of their own: the last first."""
        job = self.jobs[number]
        model = job["model"].rpartition("/")[2]
        lines = self._lines(job["inputConfig"]["gcsSource"]["uris"][0])
        done = [_line(each, turns, model) for each in reversed(lines)]
        prefix = job["outputConfig"]["gcsDestination"]["outputUriPrefix"]
        directory = f"{prefix}/prediction-model-2026-08-20T18:40:00.000000Z"
        content = b"".join(orjson.dumps(line) + b"\n" for line in done)
        self._storage.put(f"{directory}/predictions.jsonl", content)
        failed = sum(bool(line["status"]) for line in done)
        job.update(
            state="JOB_STATE_SUCCEEDED",
            startTime=_CREATED,
            endTime=_CREATED,
            outputInfo={"gcsOutputDirectory": directory},
            completionStats={
                "successfulCount": str(len(done) - failed),
                "failedCount": str(failed),
            },
        )

    def job(self, request: Recorded, turn: Turn, job: str, **_: str) -> Reply:
        """GET tells it, DELETE deletes it."""
        self._check(job)
        if request.method == "GET":
            return self._told(job)
        del self.jobs[job]
        return json_reply({"name": f"projects/1/locations/l/operations/{job}", "done": True})

    def cancel(self, request: Recorded, turn: Turn, job: str, **_: str) -> Reply:
        """POST :cancel"""
        self._check(job)
        self.jobs[job]["state"] = "JOB_STATE_CANCELLING"
        return json_reply({})

    def _check(self, job: str) -> None:
        if job not in self.jobs:
            raise RefusedError(f"BatchPredictionJob {job} is not found.", 404)


def _line(line: Json, turns: Mapping[str, Turn], model: str) -> Json:
    """The page on batches, "Retrieve batch output"."""
    request = line["request"]
    turn = turns[request["contents"][-1]["parts"][-1]["text"]]
    told = {"processed_time": "2026-08-20T18:40:00.000+00:00", "request": request}
    if turn.status >= 400:
        error = orjson.dumps(_error(turn.status, turn.message)).decode()
        return {"status": f"Bad Request: {error}", **told, "response": {}}
    answer = _made(types.GenerateContentResponse, _answer(turn, model))
    return {"status": "", **told, "response": answer}
