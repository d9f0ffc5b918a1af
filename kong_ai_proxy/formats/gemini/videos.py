"""Google's videos: Veo, by long-running operations.

Requests: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/veo-video-generation
and https://ai.google.dev/gemini-api/docs/video. Operations: https://ai.google.dev/api/models and
`google.genai.types.GenerateVideosOperation`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import NamedTuple

from kong_ai_proxy.formats import fields
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import a_text
from kong_ai_proxy.formats.gemini.names import camel
from kong_ai_proxy.formats.images import BLOCKED, Picture
from kong_ai_proxy.formats.videos import (
    Order,
    Reading,
    Size,
    VideoError,
    VideoRequest,
    an_object_or_its_text,
    anything,
    chosen_seconds,
    chosen_size,
    flag,
    video_type,
    whole_number,
)

_SIDES = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
_RATIOS = ("16:9", "9:16")
_SECONDS = 8

_PARAMETERS: Mapping[str, Reading] = {
    "aspectRatio": a_text,
    "compressionQuality": a_text,
    "durationSeconds": whole_number,
    "enhancePrompt": flag,
    "fps": whole_number,
    "generateAudio": flag,
    "negativePrompt": a_text,
    "personGeneration": a_text,
    "resizeMode": a_text,
    "resolution": a_text,
    "sampleCount": whole_number,
    "seed": whole_number,
}
_VERTEX_PARAMETERS: Mapping[str, Reading] = {
    **_PARAMETERS,
    "pubsubTopic": a_text,
    "storageUri": a_text,
}
_INSTANCE: Mapping[str, Reading] = {
    "lastFrame": an_object_or_its_text,
    "mask": an_object_or_its_text,
    "referenceImages": anything,
    "video": an_object_or_its_text,
}
_LABELS = "labels"

# https://cloud.google.com/vertex-ai/generative-ai/docs/video/responsible-ai-and-usage-guidelines
_FILTERED = re.compile(r"Responsible AI|usage guidelines", re.IGNORECASE)

# https://cloud.google.com/apis/design/errors#handling_errors; google.rpc.Code
_CODES = (
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
)


class _Model(NamedTuple):
    """What a generation of models makes: https://ai.google.dev/gemini-api/docs/video and
    https://cloud.google.com/vertex-ai/generative-ai/docs/models/veo/3-0-generate-001."""

    seconds: tuple[int, ...]
    resolutions: tuple[str, ...]


_GENERATIONS = (
    (re.compile(r"veo-2"), _Model((5, 6, 7, 8), ("720p",))),
    (re.compile(r"veo-3\.0|veo-3\.1-lite"), _Model((4, 6, 8), ("720p", "1080p"))),
    (re.compile(r"veo-3(?:\.1)?(?![0-9.])"), _Model((4, 6, 8), ("720p", "1080p", "4k"))),
)
_LATER = _Model(tuple(range(1, 61)), tuple(_SIDES))


def render_request(request: VideoRequest, *, vertex: bool) -> Order:
    """The body of `:predictLongRunning`. Raises FormatError."""
    model = next((each for name, each in _GENERATIONS if name.search(request.model)), _LATER)
    instance: dict[str, object] = {"prompt": request.prompt}
    if request.image:
        instance["image"] = _image(request.image)
    body: dict[str, object] = {"instances": [instance]}
    parameters, dropped = _settings(request, instance, body, vertex=vertex)
    parameters |= _chosen(request, model)
    if parameters.get("sampleCount", 1) != 1:
        raise FormatError("sampleCount: expected 1: an OpenAI client gets one video for a job")
    if vertex:
        parameters.setdefault("sampleCount", 1)
    if parameters:
        body["parameters"] = parameters
    # What is added to a video is of another length, which nobody tells.
    seconds = None if "video" in instance else _seconds(parameters)
    return Order(body, seconds, _size(parameters), dropped)


def _image(image: Picture) -> dict[str, object]:
    data = base64.b64encode(image.content).decode()
    return {"bytesBase64Encoded": data, "mimeType": image.media_type}


def _settings(
    request: VideoRequest, instance: dict[str, object], body: dict[str, object], *, vertex: bool
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The parameters that the client gives under Google's names, in either spelling, on their own
    or together as `parameters`; and those that there are none of. What belongs to the instance, or
    to the body beside it, is put there."""
    known = _VERTEX_PARAMETERS if vertex else _PARAMETERS
    given = dict(request.settings)
    together = an_object_or_its_text(given.pop("parameters", {}), "parameters")
    parameters: dict[str, object] = {}
    dropped = []
    for name, value in (*together.items(), *given.items()):
        own = camel(name)
        if own in known:
            parameters[own] = known[own](value, name)
        elif own in _INSTANCE:
            instance[own] = _INSTANCE[own](value, name)
        elif own == _LABELS and vertex:
            body[own] = an_object_or_its_text(value, name)
        else:
            dropped.append(name)
    return parameters, tuple(dropped)


def _chosen(request: VideoRequest, model: _Model) -> dict[str, object]:
    """What OpenAI's own parameters become; only what the client has said. Veo 2 has one resolution
    and no parameter for it."""
    chosen: dict[str, object] = {}
    if request.seconds is not None:
        chosen["durationSeconds"] = chosen_seconds(request, model.seconds, _SECONDS)
    sizes = {
        size: (resolution, ratio)
        for resolution in model.resolutions
        for ratio, size in zip(_RATIOS, (_SIDES[resolution], _SIDES[resolution][::-1]), strict=True)
    }
    size = chosen_size(request, sizes)
    if size is not None:
        resolution, chosen["aspectRatio"] = sizes[size]
        if len(model.resolutions) > 1:
            chosen["resolution"] = resolution
    return chosen


def _seconds(parameters: Mapping[str, object]) -> int:
    seconds = parameters.get("durationSeconds", _SECONDS)
    assert isinstance(seconds, int)
    return seconds


def _size(parameters: Mapping[str, object]) -> Size | None:
    """What the provider makes of the parameters, its defaults included."""
    long, short = _SIDES.get(str(parameters.get("resolution", "720p")).lower(), (0, 0))
    ratio = parameters.get("aspectRatio", _RATIOS[0])
    if not long or ratio not in _RATIOS:
        return None
    return (long, short) if ratio == _RATIOS[0] else (short, long)


# ---- operations


class Operation(NamedTuple):
    """What an operation tells. One that is done has an error, an address or the video."""

    done: bool = False
    error: VideoError | None = None
    uri: str = ""
    """Of a file of the Gemini API, or gs://BUCKET/OBJECT."""
    base64: str = ""
    media_type: str = ""


def parse_operation(value: Mapping[str, object]) -> Operation:
    """An operation, also one that has just begun."""
    if value.get("done") is not True:
        return Operation()
    error = value.get("error")
    if isinstance(error, dict):
        return Operation(True, _error(error))
    response = fields.object_of(value, "response")
    made = response.get("generateVideoResponse")
    answer = made if isinstance(made, dict) else response
    samples = fields.objects_of(answer, "generatedSamples")
    videos = [fields.object_of(each, "video") for each in samples]
    for video in (*videos, *fields.objects_of(answer, "videos")):
        found = _video(video)
        if found.uri or found.base64:
            return found
    return Operation(True, _nothing(answer))


def _video(video: Mapping[str, object]) -> Operation:
    return Operation(
        True,
        uri=fields.text_of(video, "uri") or fields.text_of(video, "gcsUri"),
        base64=fields.text_of(video, "bytesBase64Encoded") or fields.text_of(video, "encodedVideo"),
        media_type=video_type(
            fields.text_of(video, "mimeType") or fields.text_of(video, "encoding")
        ),
    )


def _error(error: Mapping[str, object]) -> VideoError:
    message = fields.text_of(error, "message") or "the provider told no reason"
    if _FILTERED.search(message):
        return VideoError(BLOCKED, message)
    code = error.get("code")
    known = type(code) is int and 0 < code < len(_CODES)
    name = _CODES[code] if known and isinstance(code, int) else "unknown"
    return VideoError(name, message)


def _nothing(answer: Mapping[str, object]) -> VideoError:
    """Why there is no video, which may be what it would have shown."""
    reasons = answer.get("raiMediaFilteredReasons")
    texts = [each for each in reasons if isinstance(each, str)] if isinstance(reasons, list) else []
    if texts or answer.get("raiMediaFilteredCount"):
        return VideoError(BLOCKED, " ".join(texts) or "the provider's filters removed the video")
    return VideoError("unknown", "the provider made no video and told no reason")
