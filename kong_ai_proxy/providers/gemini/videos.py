"""Videos of Google's models in the Gemini API and on Vertex AI: Veo
(https://ai.google.dev/gemini-api/docs/video and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/veo-video-generation), and
Omni by interactions (https://ai.google.dev/gemini-api/docs/omni). The model's name says which.

Neither lists its operations for a key or project as a whole, nor deletes them. Neither tells when a
job began, nor how long its video is and how large: the name in a client's id carries that.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Generator
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import fields, gemini
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import omni
from kong_ai_proxy.formats.gemini.videos import Operation, parse_operation, render_request
from kong_ai_proxy.formats.videos import MP4, Order, Video, VideoRequest, size_text
from kong_ai_proxy.providers.flow import (
    MAX_MEDIA,
    Passed,
    ProviderFailed,
    Result,
    Send,
    Step,
    Wanted,
    parsed,
    sent,
    unusable,
)
from kong_ai_proxy.providers.gemini.paths import located, public_model, publisher, vertex_model
from kong_ai_proxy.providers.images import dumped
from kong_ai_proxy.providers.videos import Found, Service, Started, flow, ranged, unknown

_PUBLIC_HOST = "generativelanguage.googleapis.com"
_STORAGE = "https://storage.googleapis.com"

_MODEL = r"[A-Za-z0-9](?:[A-Za-z0-9_@-]|\.(?!\.)){0,127}"
_OPERATION = re.compile(
    rf"(?:projects/[^/]+/locations/[^/]+/publishers/google/)?models/({_MODEL})"
    r"/operations/([A-Za-z0-9_-]{1,128})"
)
_NAME = re.compile(
    rf"({_MODEL})/([A-Za-z0-9_=-]{{1,200}})/([0-9]{{1,12}})/([0-9]{{1,4}})"
    r"(?:/([0-9]{1,5})x([0-9]{1,5}))?"
)
_INTERACTION = re.compile(r"[A-Za-z0-9_=-]{1,200}")
_REVISION = {"api-revision": omni.REVISION}
_FILE = re.compile(r"(?:/download)?/v1(?:beta|alpha)?/files/([A-Za-z0-9_-]{1,128}):download")
_STORED = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(.{1,1024})")
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")

_parse_error = gemini.GENERATE.parse_error


class _Job(NamedTuple):
    """What a client's id holds."""

    model: str
    operation: str
    created_at: int
    order: Order

    @property
    def name(self) -> str:
        """See Video.name."""
        size = f"/{size_text(self.order.size)}" if self.order.size else ""
        known = f"{self.created_at}/{self.order.seconds or 0}{size}"
        return f"{self.model}/{self.operation}/{known}"


def _job(name: str) -> _Job:
    """Raises ProviderFailed for a name that is no job's."""
    found = _NAME.fullmatch(name)
    if not found:
        raise unknown(name)
    size = (int(found[5]), int(found[6])) if found[5] else None
    order = Order({}, int(found[4]) or None, size)
    return _Job(found[1], found[2], int(found[3]), order)


def _begun(job: _Job, **more: Any) -> Video:
    return Video(
        name=job.name,
        created_at=job.created_at,
        model=job.model,
        seconds=job.order.seconds,
        size=job.order.size,
        **more,
    )


# ---- both


def _start(path: str, order: Order, wanted: Wanted) -> Generator[Step, Any, Started]:
    send = Send("POST", f"{path}:predictLongRunning", body=dumped(order.body))
    value = parsed((yield from sent(send, _parse_error)))
    found = _OPERATION.fullmatch(str(value.get("name")))
    if not found:
        raise unusable("it does not name an operation of a model")
    return _started(_Job(found[1], found[2], int(wanted.now), order), wanted)


def _started(job: _Job, wanted: Wanted) -> Started:
    prompt = wanted.body.get("prompt")
    video = _begun(job, status="queued", prompt=prompt if isinstance(prompt, str) else None)
    return Started(video, job.order.dropped)


def _found(job: _Job, operation: Operation) -> Found:
    status = "in_progress"
    if operation.done:
        status = "failed" if operation.error else "completed"
    video = _begun(job, status=status, error=operation.error)
    return Found(video, operation.uri or operation.base64, operation.media_type)


def _checked(request: VideoRequest) -> VideoRequest:
    """With a model that an id can hold. Raises FormatError."""
    if not re.fullmatch(_MODEL, request.model.rpartition("/")[2]):
        raise FormatError("model: expected a name")
    return request


def _interact(path: str, order: Order, wanted: Wanted) -> Generator[Step, Any, Started]:
    """What Google answers repeats the request, its image too."""
    send = Send("POST", path, headers=_REVISION, body=dumped(order.body), most=MAX_MEDIA)
    value = parsed((yield from sent(send, _parse_error)))
    found = _INTERACTION.fullmatch(fields.text_of(value, "id"))
    if not found:
        raise unusable("it has no id of an interaction")
    return _started(_Job(str(order.body["model"]), found[0], int(wanted.now), order), wanted)


def _find_interaction(path: str, job: _Job) -> Generator[Step, Any, Found]:
    """Google answers 400 where there is no interaction of that name."""
    send = Send("GET", f"{path}/{quote(job.operation)}", headers=_REVISION, most=MAX_MEDIA)
    try:
        reply = yield from sent(send, _parse_error)
    except ProviderFailed as failed:
        if failed.error.message.startswith("Invalid interaction"):
            raise unknown(job.name) from None
        raise
    return _found(job, omni.parse_interaction(parsed(reply)))


def _inline(found: Found) -> Result:
    """A video that is in the answer about its job."""
    try:
        content = base64.b64decode(found.asset, validate=True)
    except (binascii.Error, ValueError):
        raise unusable("the video is not in base64") from None
    return Result(content, media_type=found.media_type)


# ---- the Gemini API

_INTERACTIONS = "/v1beta/interactions"


def _start_public(request: VideoRequest, wanted: Wanted) -> Generator[Step, Any, Started]:
    if omni.makes(request.model):
        order = omni.render_request(_checked(request), vertex=False)
        return (yield from _interact(_INTERACTIONS, order, wanted))
    order = render_request(request, vertex=False)
    return (yield from _start(public_model(request.model), order, wanted))


def _find_public(name: str, wanted: Wanted) -> Generator[Step, Any, Found]:
    job = _job(name)
    if omni.makes(job.model):
        return (yield from _find_interaction(_INTERACTIONS, job))
    send = Send("GET", f"/v1beta/models/{job.model}/operations/{job.operation}")
    return _found(job, parse_operation(parsed((yield from sent(send, _parse_error)))))


def _public_content(found: Found, variant: str, wanted: Wanted) -> Result | Passed:
    """The file, at the place to which its own address redirects. Whatever address is told, the key
    goes to the configured host alone."""
    if "://" not in found.asset:
        return _inline(found)
    file = _file(found.asset, wanted.options)
    send = Send("GET", f"/download/v1beta/files/{file}:download", "alt=media", ranged(wanted))
    return Passed(send, _parse_error, MP4)


def _file(uri: str, options: ModelOptions) -> str:
    """The id of the file at an address that the provider told."""
    try:
        parts = urlsplit(uri)
        own = urlsplit(options.upstream_url or "").netloc
    except ValueError:
        raise unusable("the video's address is none") from None
    found = _FILE.fullmatch(parts.path)
    if not found or parts.netloc not in (_PUBLIC_HOST, own) or not parts.netloc:
        raise unusable("the video is at an address that is not the Gemini API's")
    return found[1]


# ---- Vertex AI


def _start_vertex(request: VideoRequest, wanted: Wanted) -> Generator[Step, Any, Started]:
    """Buckets are the client's to choose, as in Vertex AI's own API: `storageUri` is any that the
    operator's project may write to, `gcsUri` of a frame any object that it may read."""
    if publisher(request.model)[0] != "google":
        raise FormatError(f"model: expected a video model of Google's, got {request.model[:100]!r}")
    if omni.makes(request.model):
        order = omni.render_request(_checked(request), vertex=True)
        return (yield from _interact(_vertex_interactions(wanted), order, wanted))
    order = render_request(request, vertex=True)
    return (yield from _start(vertex_model(wanted.options, request.model), order, wanted))


def _find_vertex(name: str, wanted: Wanted) -> Generator[Step, Any, Found]:
    """Project and location are the configured ones, whatever the id says."""
    job = _job(name)
    if omni.makes(job.model):
        return (yield from _find_interaction(_vertex_interactions(wanted), job))
    path = vertex_model(wanted.options, f"publishers/google/models/{job.model}")
    where = wanted.options.gemini
    operation = (
        f"projects/{where.project_id}/locations/{where.location_id}"
        f"/publishers/google/models/{job.model}/operations/{job.operation}"
    )
    body = dumped({"operationName": operation})
    send = Send("POST", f"{path}:fetchPredictOperation", body=body, most=MAX_MEDIA)
    return _found(job, parse_operation(parsed((yield from sent(send, _parse_error)))))


def _vertex_content(found: Found, variant: str, wanted: Wanted) -> Result | Passed:
    """The video is in the operation itself, or in a bucket where the client wanted it there."""
    if found.asset.startswith("gs://"):
        return Passed(_stored(found.asset, wanted), _parse_error, found.media_type)
    return _inline(found)


def _vertex_interactions(wanted: Wanted) -> str:
    return f"/v1beta1{located(wanted.options).removeprefix('/v1')}/interactions"


def _stored(uri: str, wanted: Wanted) -> Send:
    """https://cloud.google.com/storage/docs/json_api/v1/objects/get"""
    found = _STORED.fullmatch(uri)
    if not found or _DOTS.search(found[2]):
        raise unusable("the video's address in Cloud Storage is none")
    path = f"/storage/v1/b/{found[1]}/o/{quote(found[2], safe='')}"
    base_url = "" if wanted.options.upstream_url else _STORAGE
    return Send("GET", path, "alt=media", ranged(wanted), base_url=base_url)


PUBLIC = flow(Service(_start_public, _find_public, _public_content))
"""openai.VIDEOS in the Gemini API."""

VERTEX = flow(Service(_start_vertex, _find_vertex, _vertex_content))
"""openai.VIDEOS on Vertex AI."""
