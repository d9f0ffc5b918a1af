"""Images that are asked for and made, in no format's words."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kong_ai_proxy.formats.usage import Usage

PNG = "image/png"
JPEG = "image/jpeg"
WEBP = "image/webp"


def media_type_of(content: bytes) -> str:
    """PNG, JPEG or WEBP, as a file's first bytes tell; "" for anything else.

    PNG specification, section 5.2; ISO/IEC 10918-1, B.1.1.3;
    https://developers.google.com/speed/webp/docs/riff_container
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if content.startswith(b"\xff\xd8\xff"):
        return JPEG
    return WEBP if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ""


def media_type_of_base64(data: str) -> str:
    """The same of a file in base64, of which only the beginning is looked at."""
    try:
        return media_type_of(base64.b64decode(data[:16]))
    except (binascii.Error, ValueError):
        return ""


class Picture(NamedTuple):
    """An image that a client sends along."""

    content: bytes
    media_type: str
    """Such as image/png."""


BLOCKED = "moderation_blocked"
"""OpenAI's code for what its own models refuse to make."""

BLOCKED_TYPE = "image_generation_user_error"
"""Its type of such an error."""

_SEEDS = 1 << 31


def seeded(body: dict[str, object], member: str, done: int) -> dict[str, object]:
    """The body of a call for more images, after `done` of them: its seed, which lies in `member`,
    goes on by as many where the client has said one, else the call would make the same again."""
    config = body.get(member)
    seed = config.get("seed") if isinstance(config, dict) else None
    if not isinstance(config, dict) or type(seed) is not int or not 0 <= seed < _SEEDS:
        return body
    return {**body, member: {**config, "seed": (seed + done) % _SEEDS}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRequest:
    """A prompt, and what is to be edited."""

    prompt: str
    model: str = ""
    n: int = 1
    size: tuple[int, int] | None = None
    """Width and height in pixels; None: the model's choice."""
    quality: str | None = None
    """As the client wrote it: low, medium, high, standard, hd."""
    background: str | None = None
    """transparent or opaque."""
    output_format: str | None = None
    """png, jpeg or webp."""
    as_url: bool | None = None
    """Whether the client asked for URLs; None where it did not say."""
    images: tuple[Picture, ...] = ()
    """To edit; () for an image made from nothing."""
    mask: Picture | None = None
    """Where to edit: its transparent pixels."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Other parameters under the names that the client used."""


class Image(NamedTuple):
    """One image that was made: as base64, or where it lies."""

    base64: str = ""
    url: str = ""
    revised_prompt: str | None = None
    media_type: str = ""
    """"" where nobody told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesAnswer:
    """The images of one answer."""

    images: tuple[Image, ...]
    usage: Usage | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    """What the answer tells of size, quality, background and output_format, under OpenAI's
    names."""
