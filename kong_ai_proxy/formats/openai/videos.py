"""OpenAI's videos: https://platform.openai.com/docs/api-reference/videos.

A request comes as a form, with or without a file, or as JSON. A job's id is made of the name under
which its provider has it, so that nothing has to be remembered here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import a_text, wrong
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.images import Picture
from kong_ai_proxy.formats.openai.pictures import picture, referred
from kong_ai_proxy.formats.videos import Listed, Page, Size, Video, VideoRequest, size_text

VARIANTS = ("video", "thumbnail", "spritesheet")

_PREFIX = "video_"
_ID = re.compile(r"video_([A-Za-z0-9_-]{2,500})")
_NAME = re.compile(r"[!-~]{1,375}")
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_SECONDS = re.compile(r"[1-9][0-9]{0,3}")
_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]{1,100}\]){1,8})")
_REFERENCE = "input_reference"
_MAX_LIMIT = 100
_LIMIT = 20


def parse_request(body: Mapping[str, object], parts: tuple[Part, ...] = ()) -> VideoRequest:
    """A request for a video: of a form its plain fields and its parts, or a JSON object and no
    parts. Raises FormatError."""
    said = _members(body)
    file, reference = _file(parts), _reference(said)
    if file and reference:
        wrong(_REFERENCE, "one image, as a file or as a data URL")
    return VideoRequest(
        prompt=_prompt(said.pop("prompt", None)),
        model=openai.requested_model({"model": said.pop("model", None)}) or "",
        seconds=_seconds(said.pop("seconds", None)),
        size=_size(said.pop("size", None)),
        image=file or reference,
        settings=said,
    )


def _members(body: Mapping[str, object]) -> dict[str, object]:
    """What is said: a form writes what is nested as `parameters[seed]`, and what a client's library
    does not know perhaps as `extra_body[fps]`."""
    said: dict[str, object] = {}
    for name, value in body.items():
        if value is None:
            continue
        path = _path(name)
        if path[0] == "extra_body" and len(path) > 1:
            path = path[1:]
            if path[0] in ("model", "prompt"):
                raise FormatError(f"{name}: expected {path[0]} on its own")
        place = said
        for each in path[:-1]:
            inner = place.setdefault(each, {})
            if not isinstance(inner, dict):
                raise FormatError(f"{name}: {each} has a value of its own")
            place = inner
        if path[-1] in place:
            raise FormatError(f"{name}: it occurs twice")
        place[path[-1]] = value
    return said


def _path(name: str) -> list[str]:
    found = _NESTED.fullmatch(name)
    return [found[1], *found[2][1:-1].split("][")] if found else [name]


def _prompt(value: object) -> str:
    if value is None:
        wrong("prompt", "a text that says what the video shows; it is missing")
    text = a_text(value, "prompt")
    if not text.strip():
        wrong("prompt", "a text that is not empty")
    return text


def _seconds(value: object) -> int | None:
    """OpenAI's clients send a text."""
    if value is None:
        return None
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _SECONDS.fullmatch(text):
        wrong("seconds", 'a whole number of seconds such as "8"')
    return int(text)


def _size(value: object) -> Size | None:
    if value is None:
        return None
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        wrong("size", 'width and height in pixels such as "1280x720"')
    return int(found[1]), int(found[2])


# ---- the image that a video begins with


def _file(parts: tuple[Part, ...]) -> Picture | None:
    files = [part for part in parts if part.filename is not None]
    for part in files:
        if part.name != _REFERENCE:
            raise FormatError(f"{part.name}: this provider takes one file, {_REFERENCE}")
    if len(files) > 1:
        wrong(_REFERENCE, "one file")
    return picture(files[0].content, _REFERENCE) if files else None


def _reference(said: dict[str, object]) -> Picture | None:
    """An image that is referred to, which is taken out."""
    value = said.pop(_REFERENCE, None)
    if value is None:
        return None
    return picture(referred(value, _REFERENCE), _REFERENCE)


# ---- queries


def parse_variant(query: Mapping[str, str]) -> str:
    """Which of a video's files a client wants. Raises FormatError."""
    variant = query.get("variant", "video")
    if variant not in VARIANTS:
        wrong("variant", "video, thumbnail or spritesheet")
    return variant


def parse_page(query: Mapping[str, str]) -> Page:
    """Which jobs a client wants to see. Raises FormatError."""
    limit = query.get("limit", str(_LIMIT))
    known = limit.isascii() and limit.isdigit() and len(limit) <= 3
    if not known or not 1 <= int(limit) <= _MAX_LIMIT:
        wrong("limit", f"a whole number from 1 to {_MAX_LIMIT}")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        wrong("order", "asc or desc")
    after = query.get("after", "")
    name = name_of(after) if after else ""
    if name is None:
        wrong("after", "the id of a video of this provider")
    return Page(int(limit), name, order == "asc")


# ---- ids


def video_id(name: str) -> str:
    """The id of the job that its provider finds by `name`: at most 506 letters, digits, "_" and
    "-"."""
    if not _NAME.fullmatch(name):
        raise FormatError("the name of the video's job is too long")
    return _PREFIX + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def name_of(given: str) -> str | None:
    """The name in an id of `video_id`; None for anything else."""
    found = _ID.fullmatch(given)
    if not found:
        return None
    text = found[1]
    try:
        name = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    # One id for one name: what base64 leaves unused has to be zero.
    return name if _NAME.fullmatch(name) and video_id(name) == given else None


# ---- answers


def render_video(video: Video) -> dict[str, object]:
    """A job."""
    error = video.error
    return {
        "id": video_id(video.name),
        "object": "video",
        "model": video.model,
        "status": video.status,
        "progress": 100 if video.status == "completed" else 0,
        "created_at": video.created_at,
        "completed_at": video.completed_at,
        "expires_at": video.expires_at,
        "prompt": video.prompt,
        "seconds": "" if video.seconds is None else str(video.seconds),
        "size": "" if video.size is None else size_text(video.size),
        "remixed_from_video_id": None,
        "error": {"code": error.code, "message": error.message} if error else None,
    }


def render_list(listed: Listed) -> dict[str, object]:
    """A page of jobs."""
    data = [render_video(video) for video in listed.videos]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": listed.has_more,
    }


def render_deleted(given: str) -> dict[str, object]:
    """That the job with this id is no more."""
    return {"id": given, "object": "video.deleted", "deleted": True}
