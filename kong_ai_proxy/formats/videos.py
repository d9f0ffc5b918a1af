"""Videos that are asked for and made, in no format's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import an_object, wrong
from kong_ai_proxy.formats.images import Picture

Size = tuple[int, int]
"""Width and height in pixels."""

Status = Literal["queued", "in_progress", "completed", "failed"]

MP4 = "video/mp4"
_VIDEO_TYPE = re.compile(r"video/[a-z0-9.+-]{1,100}", re.IGNORECASE)


def video_type(told: str) -> str:
    """What a provider tells of a video's format, which goes into a header; MP4 where that is no
    format of videos."""
    return told if _VIDEO_TYPE.fullmatch(told) else MP4


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """A prompt, and what the video begins with."""

    prompt: str
    model: str = ""
    seconds: int | None = None
    """None: the model's choice."""
    size: Size | None = None
    image: Picture | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    """Other parameters under the names that the client used. Of a form they are texts."""


class Order(NamedTuple):
    """A provider's request, and what will be made of it."""

    body: dict[str, object]
    seconds: int | None
    size: Size | None
    dropped: tuple[str, ...] = ()
    """Names of the client's parameters that the provider has not."""


class VideoError(NamedTuple):
    """Why there is no video."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A job that makes one video."""

    name: str
    """All that its provider has to be told to find it again, and what the provider does not tell
    of it. Printable ASCII."""
    status: Status
    created_at: int
    """Seconds since 1970, as all times here."""
    model: str = ""
    prompt: str | None = None
    seconds: int | None = None
    """None where nobody told."""
    size: Size | None = None
    completed_at: int | None = None
    expires_at: int | None = None
    """When the video can no longer be fetched."""
    error: VideoError | None = None


class Page(NamedTuple):
    """Which jobs a client wants to see."""

    limit: int
    after: str = ""
    """The name of the job that the page before ended with; "" for the first page."""
    ascending: bool = False


class Listed(NamedTuple):
    """A page of jobs."""

    videos: Sequence[Video]
    has_more: bool = False
    dropped: tuple[str, ...] = ()
    """Names of the client's parameters that the provider has not."""


# ---- what models can do


def chosen_seconds(request: VideoRequest, allowed: Collection[int], default: int) -> int:
    """How long the video will be. Raises FormatError."""
    if request.seconds is None:
        return default
    if request.seconds not in allowed:
        wrong("seconds", f"{_listed(map(str, allowed))}{for_model(request)}")
    return request.seconds


def chosen_size(request: VideoRequest, allowed: Collection[Size]) -> Size | None:
    """The size that the client asked for. Raises FormatError."""
    if request.size is not None and request.size not in allowed:
        wrong("size", f"{_listed(map(size_text, allowed))}{for_model(request)}")
    return request.size


def for_model(request: VideoRequest) -> str:
    """What follows in an error where a model has been named."""
    return f" for the model {request.model}" if request.model else ""


def size_text(size: Size) -> str:
    """Such as 1280x720."""
    return f"{size[0]}x{size[1]}"


def _listed(names: Collection[str] | map[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


# ---- parameters of a provider's own, which are texts where they come in a form

Reading = Callable[[object, str], object]
"""Gets a value and where it stands, gives the value as JSON has it. Raises FormatError."""


def whole_number(value: object, where: str) -> int:
    """See Reading."""
    if isinstance(value, str) and len(value) < 20 and value.isascii() and value.isdigit():
        return int(value)
    if type(value) is not int:
        wrong(where, "a whole number")
    return value


def flag(value: object, where: str) -> bool:
    """See Reading."""
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        wrong(where, "true or false")
    return value


def an_object_or_its_text(value: object, where: str) -> Mapping[str, object]:
    """See Reading."""
    return an_object(_loaded(value, where), where)


def anything(value: object, where: str) -> object:
    """See Reading: JSON text of an array or an object, or whatever it is."""
    is_json = isinstance(value, str) and value.lstrip()[:1] in ("[", "{")
    return _loaded(value, where) if is_json else value


def _loaded(value: object, where: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        loaded: object = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise FormatError(f"{where}: expected JSON text") from None
    return loaded
