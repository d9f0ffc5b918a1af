"""Images that are asked for and made, in no format's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kong_ai_proxy.formats.usage import Usage


class Picture(NamedTuple):
    """An image that a client sends along."""

    content: bytes
    media_type: str
    """Such as image/png."""


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
