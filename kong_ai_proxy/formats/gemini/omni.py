"""Videos of Gemini's own models, which are called Omni, by the Interactions API.

https://ai.google.dev/gemini-api/docs/omni; members and statuses as in `google.genai.interactions`
(CreateModelInteraction, VideoResponseFormat, Interaction). An interaction in the background is a
job. One that Google's filters stop is completed, with a text in place of the video.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping

from kong_ai_proxy.formats import fields
from kong_ai_proxy.formats.fields import a_text
from kong_ai_proxy.formats.gemini.names import camel
from kong_ai_proxy.formats.gemini.videos import Operation
from kong_ai_proxy.formats.images import BLOCKED
from kong_ai_proxy.formats.videos import (
    Order,
    Reading,
    Size,
    VideoError,
    VideoRequest,
    an_object_or_its_text,
    chosen_seconds,
    chosen_size,
    video_type,
    whole_number,
)

REVISION = "2026-05-20"
"""Of the API, a value of the header Api-Revision: what interactions look like here."""

_OMNI = re.compile(r"(?:^|/)gemini-")
_SIDES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
_SIZES: Mapping[Size, tuple[str, str]] = {
    **{size: (resolution, "16:9") for resolution, size in _SIDES.items()},
    **{size[::-1]: (resolution, "9:16") for resolution, size in _SIDES.items()},
}
_USUAL = ("720p", "16:9")
# https://ai.google.dev/gemini-api/docs/omni and
# https://docs.cloud.google.com/vertex-ai/docs/generative-ai/video/generate-videos
_SECONDS = (
    (re.compile(r"gemini-omni-(?:1\.1-)?flash"), range(3, 11)),
    (re.compile(r"gemini-omni-1\.2-"), range(3, 16)),
)
_DURATION = re.compile(r"([1-9][0-9]{0,3})s")


def _seconds(value: object, where: str) -> str:
    """See Reading: a protobuf Duration."""
    return f"{whole_number(value, where)}s"


_FORMAT: Mapping[str, tuple[str, Reading]] = {
    "aspectRatio": ("aspect_ratio", a_text),
    "duration": ("duration", a_text),
    "durationSeconds": ("duration", _seconds),
    "resolution": ("resolution", a_text),
}
_VERTEX_FORMAT: Mapping[str, tuple[str, Reading]] = {
    **_FORMAT,
    "gcsUri": ("gcs_uri", a_text),
    "storageUri": ("gcs_uri", a_text),
}

_FAILED = frozenset(
    {
        "budget_exceeded",
        "cancelled",
        "failed",
        "incomplete",
        "requires_action",
        "requires_continuation",
    }
)


def makes(model: str) -> bool:
    """Whether a model is one of these: all others are asked by :predictLongRunning."""
    return _OMNI.search(model) is not None


def render_request(request: VideoRequest, *, vertex: bool) -> Order:
    """A new interaction. Raises FormatError."""
    body: dict[str, object] = {
        "model": request.model.rpartition("/")[2],
        "input": _input(request),
        "background": True,
    }
    shown: dict[str, object] = {"type": "video"}
    dropped = _settings(request, body, shown, vertex=vertex)
    shown |= _chosen(request)
    if not vertex or "gcs_uri" in shown:  # Vertex AI has no files of its own
        shown["delivery"] = "uri"
    body["response_format"] = shown
    told = _DURATION.fullmatch(str(shown.get("duration", "")))
    return Order(body, int(told[1]) if told else None, _size(shown), dropped)


def _input(request: VideoRequest) -> object:
    image = request.image
    if image is None:
        return request.prompt
    data = base64.b64encode(image.content).decode()
    return [
        {"type": "image", "data": data, "mime_type": image.media_type},
        {"type": "text", "text": request.prompt},
    ]


def _settings(
    request: VideoRequest, body: dict[str, object], shown: dict[str, object], *, vertex: bool
) -> tuple[str, ...]:
    """Put the client's parameters under Google's names, in either spelling, where they belong. The
    names of those that there are none of."""
    known = _VERTEX_FORMAT if vertex else _FORMAT
    config: dict[str, object] = {}
    # What OpenAI's clients send is what a video begins with.
    video: dict[str, object] = {"task": "image_to_video"} if request.image else {}
    dropped = []
    for name, value in request.settings.items():
        own = camel(name)
        if own in known:
            member, reading = known[own]
            shown[member] = reading(value, name)
        elif own == "seed":
            config["seed"] = whole_number(value, name)
        elif own == "task":
            video["task"] = a_text(value, name)
        elif own == "labels" and vertex:
            body["labels"] = an_object_or_its_text(value, name)
        else:
            dropped.append(name)
    if video:
        config["video_config"] = video
    if config:
        body["generation_config"] = config
    return tuple(dropped)


def _chosen(request: VideoRequest) -> dict[str, object]:
    """What OpenAI's own parameters become. Models to come are asked for any length."""
    chosen: dict[str, object] = {}
    if request.seconds is not None:
        lengths = next((each for name, each in _SECONDS if name.search(request.model)), None)
        seconds = chosen_seconds(request, lengths, 0) if lengths else request.seconds
        chosen["duration"] = f"{seconds}s"
    size = chosen_size(request, _SIZES)
    if size is not None:
        chosen["resolution"], chosen["aspect_ratio"] = _SIZES[size]
    return chosen


def _size(shown: Mapping[str, object]) -> Size | None:
    resolution, ratio = _USUAL
    said = (shown.get("resolution", resolution), shown.get("aspect_ratio", ratio))
    return next((size for size, each in _SIZES.items() if each == said), None)


# ---- interactions


def parse_interaction(value: Mapping[str, object]) -> Operation:
    """An interaction as an operation."""
    status = fields.text_of(value, "status")
    if status in _FAILED:
        return Operation(True, VideoError(status, _reason(value, status)))
    if status != "completed":  # queued, in_progress, or a status to come
        return Operation()
    contents = list(_made(value))
    for each in contents:
        uri, data = fields.text_of(each, "uri"), fields.text_of(each, "data")
        if fields.text_of(each, "type") == "video" and (uri or data):
            media_type = video_type(fields.text_of(each, "mime_type"))
            return Operation(True, uri=uri, base64=data, media_type=media_type)
    said = " ".join(filter(None, (fields.text_of(each, "text") for each in contents)))
    if said:
        return Operation(True, VideoError(BLOCKED, said))
    return Operation(True, VideoError("unknown", "the provider made no video and told no reason"))


def _made(value: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for step in fields.objects_of(value, "steps"):
        if fields.text_of(step, "type") == "model_output":
            yield from fields.objects_of(step, "content")


def _reason(value: Mapping[str, object], status: str) -> str:
    errors = [fields.object_of(value, "error"), *fields.objects_of(value, "errors")]
    told = next(filter(None, (fields.text_of(each, "message") for each in errors)), "")
    return told or f"the provider says: {status}"
