"""Masks for providers that take them in black and white."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from kong_ai_proxy.formats import png
from kong_ai_proxy.formats.images import PNG, ImagesRequest, Picture
from kong_ai_proxy.providers.flow import Step, waited


def with_mask(request: ImagesRequest, *, white: bool) -> Generator[Step, object, ImagesRequest]:
    """The request with a mask that is white, or black, where the image is to be edited and the
    other colour elsewhere; as it is where it has none. Others get their turn meanwhile. Raises
    FormatError."""
    if request.mask is None:
        return request
    steps = png.black_and_white(request.mask.content, white=white)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return replace(request, mask=Picture(stop.value, PNG))
        yield from waited(0.0)
