"""Azure's videos of the first Sora: jobs, of which each makes one or several generations.

https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference-preview-latest and
https://learn.microsoft.com/en-us/azure/ai-services/openai/video-generation-quickstart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import objects_of, text_of, wrong
from kong_ai_proxy.formats.images import BLOCKED, Picture
from kong_ai_proxy.formats.videos import (
    Order,
    Status,
    Video,
    VideoError,
    VideoRequest,
    anything,
    chosen_size,
    for_model,
    whole_number,
)

_LAST_TIME = 1 << 40  # seconds; a larger number is none, and may be no whole one
_SECONDS = range(1, 21)
_USUAL_SECONDS = 5
_SIZES = (
    (480, 480),
    (480, 854),
    (854, 480),
    (720, 720),
    (720, 1280),
    (1280, 720),
    (1080, 1080),
    (1080, 1920),
    (1920, 1080),
)
_USUAL_SIZE = (1280, 720)
_FILTERED = frozenset({"input_moderation", "output_moderation"})

_STATUSES: Mapping[str, Status] = {
    "queued": "queued",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
"""All others (preprocessing, running, processing) are in progress."""


def render_request(request: VideoRequest, deployment: str) -> Order:
    """The members of a new job. Raises FormatError.

    OpenAI's `seconds` and `size` may be left out; Azure wants a width and a height.
    """
    seconds = request.seconds or _USUAL_SECONDS
    if seconds not in _SECONDS:
        wrong("seconds", f"a whole number from 1 to 20{for_model(request)}")
    size = chosen_size(request, _SIZES) or _USUAL_SIZE
    if whole_number(request.settings.get("n_variants", 1), "n_variants") != 1:
        raise FormatError("n_variants: expected 1: an OpenAI client gets one video for a job")
    body: dict[str, object] = {
        "model": deployment,
        "prompt": request.prompt,
        "width": size[0],
        "height": size[1],
        "n_seconds": seconds,
        "n_variants": 1,
    }
    known = {"n_variants"}
    if request.image:
        body["inpaint_items"] = [_first_frame(request.image)]
    elif "inpaint_items" in request.settings:
        body["inpaint_items"] = anything(request.settings["inpaint_items"], "inpaint_items")
        known.add("inpaint_items")
    dropped = tuple(name for name in request.settings if name not in known)
    return Order(body, seconds, size, dropped)


def _first_frame(image: Picture) -> dict[str, object]:
    return {"frame_index": 0, "type": "image", "file_name": _file_name(image)}


def _file_name(image: Picture) -> str:
    return f"image.{image.media_type.removeprefix('image/')}"


def render_form(order: Order, image: Picture, boundary: str) -> bytes:
    """The same job as a form, which it has to be with a file. `boundary` must be random: it must
    not occur in what the client sent. Raises FormatError where it does."""
    parts = []
    for name, value in order.body.items():
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode())
    parts.append(
        f'Content-Disposition: form-data; name="files"; filename="{_file_name(image)}"\r\n'
        f"Content-Type: {image.media_type}\r\n\r\n".encode()
        + image.content
    )
    line = f"--{boundary}".encode()
    if any(line in part for part in parts):
        raise FormatError("the boundary of the form occurs in it; send the request again")
    return b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"


class Job(NamedTuple):
    """A job, and what it has made."""

    video: Video
    generation: str = ""
    """The id of the first video; "" where there is none yet."""


def parse_job(value: Mapping[str, object]) -> Job:
    """A job. Raises FormatError where it is none."""
    name, created_at = text_of(value, "id"), _time(value, "created_at")
    if not name or created_at is None:
        raise FormatError("expected a video generation job with `id` and `created_at`")
    told = text_of(value, "status")
    status = _STATUSES.get(told, "in_progress")
    made = objects_of(value, "generations")
    generation = text_of(made[0], "id") if made and status == "completed" else ""
    error = _error(value, told, status, generation)
    width, height = _whole(value, "width"), _whole(value, "height")
    video = Video(
        name=name,
        status="failed" if error else status,
        created_at=created_at,
        model=text_of(value, "model"),
        prompt=text_of(value, "prompt") or None,
        seconds=_whole(value, "n_seconds"),
        size=(width, height) if width and height else None,
        completed_at=_time(value, "finished_at") if generation else None,
        expires_at=_time(value, "expires_at"),
        error=error,
    )
    return Job(video, generation)


def _error(
    value: Mapping[str, object], told: str, status: Status, generation: str
) -> VideoError | None:
    """Why there is no video where there will be none."""
    reason = text_of(value, "failure_reason")
    if status == "failed":
        why = f"the provider says: {reason}" if reason else "the provider told no reason"
        code = BLOCKED if reason in _FILTERED else reason or told
        return VideoError(code, f"the job has {told}; {why}")
    if status == "completed" and not generation:
        return VideoError(reason or "no_video", "the job has succeeded without a video")
    return None


def _time(value: Mapping[str, object], name: str) -> int | None:
    """Seconds since 1970; None for what is no such number."""
    found = value.get(name)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return None
    return int(found) if 0 <= found < _LAST_TIME else None


def _whole(value: Mapping[str, object], name: str) -> int | None:
    """Microsoft's own examples have these as numbers and as texts."""
    found = value.get(name)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 10:
        return int(found)
    return found if type(found) is int else None
