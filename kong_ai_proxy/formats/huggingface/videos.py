"""Videos through Hugging Face's router: the queue of fal, the partner whose jobs can be polled.

https://huggingface.co/docs/inference-providers/tasks/text-to-video and
https://huggingface.co/docs/inference-providers/providers/fal-ai; the calls behind them are those of
`huggingface_hub` (https://github.com/huggingface/huggingface_hub, inference/_providers/fal_ai.py)
and https://docs.fal.ai/model-apis/model-endpoints/queue.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import object_of, objects_of, parsed, plain_error, text_of, wrong
from kong_ai_proxy.formats.huggingface.common import error_of
from kong_ai_proxy.formats.images import BLOCKED
from kong_ai_proxy.formats.videos import (
    Order,
    Reading,
    Status,
    VideoError,
    VideoRequest,
    anything,
    video_type,
    whole_number,
)

PARTNER = "fal-ai"
TEXT = "text-to-video"
IMAGE = "image-to-video"

_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,96}"
_MODEL = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{1,6}}")
_REQUEST = re.compile(rf"/{_MODEL.pattern}/requests/[A-Za-z0-9-]{{1,64}}")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_FILTERED = "content_policy_violation"
_STATUSES: Mapping[str, Status] = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "in_progress",
    "COMPLETED": "completed",
}


def _number(value: object, where: str) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if type(value) not in (int, float):
        wrong(where, "a number")
    return value


_READINGS: Mapping[str, Reading] = {
    "guidance_scale": _number,
    "num_frames": whole_number,
    "num_inference_steps": whole_number,
    "seed": whole_number,
}
"""Of the parameters that Hugging Face documents for the task, those that are no texts."""


class Mapped(NamedTuple):
    """What a model of the Hub is at the partner."""

    name: str
    adapter: str = ""
    """The file of its weights, where it only changes the model of that name."""


def parse_mapping(value: Mapping[str, object], model: str, task: str) -> Mapped:
    """Of the Hub's answer about a model. Raises FormatError where the partner does not do the task
    with it."""
    mapping = value.get("inferenceProviderMapping")
    if isinstance(mapping, Mapping):  # as it was until 2025
        found = object_of(mapping, PARTNER)
    else:
        partners = objects_of(value, "inferenceProviderMapping")
        found = next((each for each in partners if text_of(each, "provider") == PARTNER), {})
    if text_of(found, "task") != task or text_of(found, "status") == "error":
        raise FormatError(
            f"model: {model} is not available for {task} at {PARTNER}, the partner of Hugging "
            "Face that videos are made by; see https://huggingface.co/models?inference_provider="
            f"{PARTNER}&pipeline_tag={task}"
        )
    name = text_of(found, "providerId")
    if not _MODEL.fullmatch(name):
        raise FormatError(f"model: the Hub has no usable name for {model} at {PARTNER}")
    return Mapped(name, text_of(found, "adapterWeightsPath"))


def render_request(request: VideoRequest, adapter: str = "") -> Order:
    """The partner's request. Models differ in what else they take, so that it goes through under
    its own name; length and size have no name that all of them know. `adapter` is the address of
    weights that change the model."""
    settings = {
        name: _READINGS.get(name, anything)(value, name) for name, value in request.settings.items()
    }
    body: dict[str, object] = {**settings, "prompt": request.prompt}
    if request.image:
        content = b64encode(request.image.content).decode()
        body["image_url"] = f"data:{request.image.media_type};base64,{content}"
    if adapter:
        body["loras"] = [{"path": adapter, "scale": 1}]
    asked = {"seconds": request.seconds, "size": request.size}
    dropped = tuple(name for name, value in asked.items() if value is not None)
    return Order(body, None, None, dropped)


def parse_queued(value: Mapping[str, object]) -> str:
    """The path of a request in the queue, of which the partner tells the address. Raises
    FormatError."""
    path = urlsplit(text_of(value, "response_url")).path
    if not is_request(path):
        raise FormatError("expected a `response_url` of the queue")
    return path


def is_request(path: str) -> bool:
    """Whether a path is one of the queue's: /{model}/requests/{id}."""
    return _REQUEST.fullmatch(path) is not None


def parse_status(value: Mapping[str, object]) -> Status:
    """Where a request is. Raises FormatError."""
    status = _STATUSES.get(text_of(value, "status"))
    if status is None:
        raise FormatError("expected a `status` of the queue")
    return status


class Made(NamedTuple):
    """A video that is there."""

    url: str
    media_type: str


def parse_result(value: Mapping[str, object]) -> Made:
    """Raises FormatError where there is no video."""
    video = object_of(value, "video")
    url = text_of(video, "url")
    if not url:
        raise FormatError("expected `video.url`")
    return Made(url, video_type(text_of(video, "content_type")))


def parse_failure(status: int, body: bytes) -> VideoError:
    """Why a job that is over has no video."""
    error = parse_error(status, body)
    code = BLOCKED if error.type == _FILTERED else error.type or "generation_failed"
    return VideoError(code, error.message)


def parse_error(status: int, body: bytes) -> ProviderError:
    """{"detail": ...} of the partner (https://docs.fal.ai/model-apis/errors), or an error of the
    router's."""
    value = parsed(body)
    detail = value.get("detail") if isinstance(value, dict) else None
    if isinstance(detail, list):
        first = next((each for each in detail if isinstance(each, dict)), {})
        return ProviderError(
            text_of(first, "msg") or f"the provider answered with status {status}",
            status=status,
            type=text_of(first, "type"),
        )
    if isinstance(detail, str) and detail:
        return ProviderError(detail, status=status)
    return error_of(value, status) or plain_error(status, body)
