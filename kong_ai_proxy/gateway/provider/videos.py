"""The stand-in provider's videos: jobs that move on when they are asked for, then a real film."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kong_ai_proxy.gateway.provider import mp4, png
from kong_ai_proxy.gateway.provider.files import FILES
from kong_ai_proxy.gateway.provider.form import form_of
from kong_ai_proxy.gateway.provider.http import (
    POLL_SOON,
    ApiError,
    Json,
    Route,
    Rule,
    check_length,
    check_params,
    json_response,
    new_id,
    now,
    read_json,
    wrong_value,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf, page

_SIZES: Final = ("720x1280", "1280x720", "1024x1792", "1792x1024")
RULES: Final[dict[str, Rule]] = {
    "input_reference": Rule("an object"),
    "model": Rule("a string"),
    "prompt": Rule("a string"),
    "seconds": Rule("a string", options=("4", "8", "12")),
    "size": Rule("a string", options=_SIZES),
}
_REMIX_RULES: Final[dict[str, Rule]] = {"prompt": Rule("a string")}
_STEPS: Final = (("queued", 0), ("in_progress", 50), ("completed", 100))  # poll by poll
_VARIANTS: Final = ("video", "thumbnail", "spritesheet")
_LONGEST: Final = 32000
_MOST_BYTES: Final = 50 * 1024 * 1024
_DAY: Final = 24 * 3600
_HEAD: Final = 32


@dataclass
class Video:
    """A job. The film is drawn anew whenever it is fetched."""

    id: str
    model: str
    prompt: str
    seconds: str
    size: str
    created_at: int
    remixed_from: str | None = None
    polls: int = 0
    completed_at: int | None = None

    @property
    def done(self) -> bool:
        return self.polls >= len(_STEPS) - 1

    def move_on(self) -> None:
        """It has been asked for."""
        if not self.done:
            self.polls += 1
            self.completed_at = now() if self.done else None

    def shown(self) -> Json:
        status, progress = _STEPS[self.polls]
        return {
            "id": self.id,
            "object": "video",
            "model": self.model,
            "status": status,
            "progress": progress,
            "prompt": self.prompt,
            "seconds": self.seconds,
            "size": self.size,
            "created_at": self.created_at,
            "completed_at": self.completed_at,
            "expires_at": self.completed_at + _DAY if self.completed_at else None,
            "remixed_from_video_id": self.remixed_from,
            "error": None,
        }

    def film(self) -> bytes:
        """Picture by picture more of it is drawn."""
        width, height = map(int, self.size.split("x"))
        count = int(self.seconds)
        parts = [(number + 1) / count for number in range(count)]
        pictures = [png.picture(width, height, self.prompt, drawn=part) for part in parts]
        return mp4.film(width, height, pictures)

    def still(self, variant: str) -> bytes:
        """A small picture, or several side by side."""
        width, height = (int(length) // 4 for length in self.size.split("x"))
        count = int(self.seconds) if variant == "spritesheet" else 1
        return png.picture(width * count, height, self.prompt)


VIDEOS: Final = web.AppKey("videos", Shelf[Video])


def set_up(app: web.Application) -> None:
    """Give the application its memory of videos."""
    app[VIDEOS] = Shelf(
        "Video with id '{id}' not found.", weigh=lambda video: len(video.prompt) + 1000
    )


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/videos, a form or JSON"""
    body, head = await _body(request, RULES, ("input_reference",))
    given = check_params(body, RULES, ("prompt",))
    check_length("prompt", given["prompt"], _LONGEST, least=1)
    size = given.get("size", _SIZES[0])
    if "input_reference" in given:
        head = _referred(request, given["input_reference"])
    if head is not None:
        _check_image(head, size)
    model, seconds = given.get("model", "sora-2"), given.get("seconds", "4")
    video = Video(new_id("video_"), model, given["prompt"], seconds, size, now())
    return json_response(request.app[VIDEOS].add(video).shown())


async def _body(
    request: web.Request, rules: dict[str, Rule], files: tuple[str, ...] = ()
) -> tuple[Json, bytes | None]:
    """The parameters of a form or of JSON, and how the form's file begins."""
    if request.content_type == "application/json":
        return await read_json(request), None
    async with form_of(request, _MOST_BYTES) as form:
        uploads = [upload for name in files for upload in form.uploads(name)]
        if not uploads:  # what may be a file may also be fields that refer to one
            return form.params(rules), None
        return form.params(rules, files), uploads[0].blob.read(0, _HEAD)


def _referred(request: web.Request, reference: Any) -> bytes | None:
    """How the file a reference names begins; URLs are not fetched."""
    key, url = reference.get("file_id"), reference.get("image_url")
    if (key is None) == (url is None) or not isinstance(key or url, str):
        message = "Invalid 'input_reference': expected either 'image_url' or 'file_id'."
        raise ApiError(400, message, param="input_reference")
    return None if key is None else request.app[FILES].get(key).blob.read(0, _HEAD)


def _check_image(head: bytes, size: str) -> None:
    found = png.size_of(head)
    others = (b"\xff\xd8\xff", b"RIFF")  # JPEG, WebP
    if found is None and not head.startswith(others) and head[4:8] != b"ftyp":
        message = "Invalid 'input_reference': expected a PNG, JPEG or WebP image or an MP4 video."
        raise ApiError(400, message, param="input_reference", code="invalid_image_file")
    if found is not None and f"{found[0]}x{found[1]}" != size:
        raise ApiError(
            400,
            "Inpaint image must match the requested width and height: it is "
            f"{found[0]}x{found[1]}, but {size} was asked for.",
            param="input_reference",
        )


async def listed(request: web.Request) -> web.StreamResponse:
    """GET /v1/videos"""
    kept = request.app[VIDEOS]
    return json_response(page(request.query, list(kept)))


def _named(request: web.Request) -> Video:
    return request.app[VIDEOS].get(request.match_info["id"])


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/videos/{id}. Each one moves the job on."""
    video = _named(request)
    video.move_on()
    return json_response(video.shown(), headers=POLL_SOON)


async def content(request: web.Request) -> web.StreamResponse:
    """GET /v1/videos/{id}/content"""
    video = _named(request)
    variant = request.query.get("variant", "video")
    if variant not in _VARIANTS:
        raise wrong_value("variant", variant, _VARIANTS)
    if not video.done:
        message = "Video is not ready yet, use GET /v1/videos/{video_id} to check status."
        raise ApiError(404, message)
    if variant == "video":
        return web.Response(body=video.film(), content_type="video/mp4")
    return web.Response(body=video.still(variant), content_type="image/png")


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/videos/{id}"""
    video = request.app[VIDEOS].remove(request.match_info["id"])
    return json_response({"id": video.id, "object": "video.deleted", "deleted": True})


async def remix(request: web.Request) -> web.StreamResponse:
    """POST /v1/videos/{id}/remix"""
    old = _named(request)
    body, _ = await _body(request, _REMIX_RULES)
    given = check_params(body, _REMIX_RULES, ("prompt",))
    check_length("prompt", given["prompt"], _LONGEST, least=1)
    if not old.done:
        message = f"Video '{old.id}' must be completed before it can be remixed."
        raise ApiError(400, message, param="video_id")
    new = Video(new_id("video_"), old.model, given["prompt"], old.seconds, old.size, now(), old.id)
    return json_response(request.app[VIDEOS].add(new).shown())


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/videos", create),
    ("GET", "/v1/videos", listed),
    ("GET", "/v1/videos/{id}", retrieve),
    ("GET", "/v1/videos/{id}/content", content),
    ("DELETE", "/v1/videos/{id}", delete),
    ("POST", "/v1/videos/{id}/remix", remix),
)
