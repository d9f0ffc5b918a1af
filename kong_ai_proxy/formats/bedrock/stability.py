"""Stability's models behind Bedrock's InvokeModel: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html.

Some make images from texts, one also from images, and the image services
(https://docs.aws.amazon.com/bedrock/latest/userguide/stable-image-services.html) do one thing with
an image each. Each call makes one image.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import NamedTuple

from kong_ai_proxy.formats.bedrock.images import (
    ImageModel,
    Json,
    Order,
    blocked,
    encoded,
    images_of,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import wrong
from kong_ai_proxy.formats.images import Image, ImagesRequest
from kong_ai_proxy.formats.sizes import nearest

_RATIOS = tuple(
    (width, height)
    for text in ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
    for width, height in [[int(side) for side in text.split(":")]]
)
STRENGTH = 0.7
"""How much Stable Diffusion 3 changes an image, which it wants to be told, where nobody said it:
0 gives the image back, 1 takes nothing from it."""

_FREE = frozenset({"negative_prompt", "seed"})
_STYLED = _FREE | {"style_preset"}


class _Kind(NamedTuple):
    """What one of the models takes."""

    images: tuple[str, ...] = ()
    """The members that hold an image each; all are needed."""
    options: frozenset[str] = _FREE
    needs: tuple[str, ...] = ()
    """Options without which it does nothing."""
    text: bool = True
    mask: bool = False
    ratio: bool = False
    formats: tuple[str, ...] = ("png", "jpeg", "webp")


_TEXT_TO_IMAGE = _Kind(ratio=True, formats=("png", "jpeg"))
_IMAGE_TO_IMAGE = _Kind(("image",), _FREE | {"strength"}, formats=("png", "jpeg"))
_ERASE = _Kind(("image",), frozenset({"seed", "grow_mask"}), text=False, mask=True)
_ALONE = _Kind(("image",), frozenset(), text=False)
_SKETCH = _Kind(("image",), _STYLED | {"control_strength"})

_KINDS: Mapping[str, _Kind] = {
    "stable-image-core": _TEXT_TO_IMAGE,
    "stable-image-ultra": _TEXT_TO_IMAGE,
    "sd3-large": _TEXT_TO_IMAGE,
    "sd3-5-large": _TEXT_TO_IMAGE,
    "stable-creative-upscale": _Kind(("image",), _STYLED | {"creativity"}),
    "stable-conservative-upscale": _Kind(("image",), _FREE | {"creativity"}),
    "stable-fast-upscale": _ALONE,
    "stable-image-inpaint": _Kind(("image",), _STYLED | {"grow_mask"}, mask=True),
    "stable-outpaint": _Kind(
        ("image",),
        frozenset({"style_preset", "seed", "creativity", "left", "right", "up", "down"}),
    ),
    "stable-image-search-recolor": _Kind(
        ("image",), _STYLED | {"grow_mask", "select_prompt"}, ("select_prompt",)
    ),
    "stable-image-search-replace": _Kind(
        ("image",), _STYLED | {"grow_mask", "search_prompt"}, ("search_prompt",)
    ),
    "stable-image-erase-object": _ERASE,
    "stable-image-remove-background": _ALONE,
    "stable-image-control-sketch": _SKETCH,
    "stable-image-control-structure": _SKETCH,
    "stable-image-style-guide": _Kind(("image",), _STYLED | {"fidelity"}, ratio=True),
    "stable-style-transfer": _Kind(
        ("init_image", "style_image"),
        _FREE | {"composition_fidelity", "style_strength", "change_strength"},
    ),
}
_MODEL = re.compile(rf"(?:^|[./])stability\.({'|'.join(_KINDS)})(?![a-z])")
_ANY = re.compile(r"(?:^|[./])stability\.(sd[0-9])?")
_DIFFUSION = ("sd3-large", "sd3-5-large")
_MOST_SEED = 4294967294


class _Stability:
    """One of the models."""

    def __init__(self, name: str, kind: _Kind, edits: _Kind | None = None) -> None:
        """`edits` is what it takes beside an image, where that is something else."""
        self._name = name
        self._plain = kind
        self._edits = edits

    def white_is_edited(self, request: ImagesRequest) -> bool:
        return True

    def render(self, request: ImagesRequest, mask: bytes | None) -> Order:
        kind = self._kind(request)
        body: dict[str, object] = {"prompt": request.prompt} if kind.text else {}
        body |= self._images(kind, request)
        if mask is not None:
            if not kind.mask:
                raise FormatError(
                    f"mask: {self._name} takes none; stability.stable-image-inpaint-v1:0 does"
                )
            body["mask"] = base64.b64encode(mask).decode()
        options = kind.options | {"aspect_ratio"} if kind.ratio else kind.options
        taken = {name: value for name, value in request.settings.items() if name in options}
        for name in kind.needs:
            if name not in taken:
                wrong(name, f"a text: {self._name} has to know what to look for in the image")
        if kind.ratio and request.size is not None:
            body["aspect_ratio"] = "{}:{}".format(*nearest(request.size, _RATIOS))
        if request.output_format is not None:
            if request.output_format not in kind.formats:
                wrong("output_format", f"{' or '.join(kind.formats)}: {self._name} makes no other")
            body["output_format"] = request.output_format
        body |= taken
        return Order(_each(body, request.n), self._dropped(kind, request, taken))

    def _kind(self, request: ImagesRequest) -> _Kind:
        return self._edits if self._edits and request.images else self._plain

    def _images(self, kind: _Kind, request: ImagesRequest) -> dict[str, object]:
        if len(request.images) != len(kind.images):
            if not kind.images:
                wrong("image", f"none: {self._name} makes images from texts; see sd3-5-large")
            wrong(
                "image",
                f"{len(kind.images)} for {self._name}, got {len(request.images)}; images are sent "
                "with an edit",
            )
        found: dict[str, object] = {
            name: encoded(image) for name, image in zip(kind.images, request.images, strict=True)
        }
        if kind is _IMAGE_TO_IMAGE:
            found |= {"mode": "image-to-image", "strength": STRENGTH}
        return found

    def _dropped(self, kind: _Kind, request: ImagesRequest, taken: Json) -> tuple[str, ...]:
        unfit = {
            "background": request.background is not None,
            "prompt": not kind.text,
            "quality": request.quality is not None,
            "size": request.size is not None and not kind.ratio,
        }
        left = [name for name in request.settings if name not in taken]
        return (*left, *(name for name, is_unfit in unfit.items() if is_unfit))

    def parse(self, value: Json) -> tuple[Image, ...] | ProviderError:
        """A finish reason says why there is no image."""
        reasons = value.get("finish_reasons")
        reason = next(
            (each for each in reasons if each) if isinstance(reasons, list) else iter(()), None
        )
        if not isinstance(reason, str):
            return images_of(value)
        if reason.startswith("Filter"):
            return blocked(reason)
        return ProviderError(f"the model could not make the image: {reason}", status=502)


def _each(body: dict[str, object], n: int) -> tuple[dict[str, object], ...]:
    """The body of each call. A seed that was said is the first one's, else all images would be
    the same; 0 stands for a random one."""
    seed = body.get("seed")
    if type(seed) is not int or not 0 < seed <= _MOST_SEED:
        return (body,) * n
    return tuple({**body, "seed": (seed + more - 1) % _MOST_SEED + 1} for more in range(n))


_MODELS = {
    name: _Stability(name, kind, _IMAGE_TO_IMAGE if name in _DIFFUSION else None)
    for name, kind in _KINDS.items()
}
_LATER_DIFFUSION = _Stability("this model", _TEXT_TO_IMAGE, _IMAGE_TO_IMAGE)
OTHER = _Stability(
    "this model",
    _Kind(ratio=True),
    _Kind(("image",), frozenset().union(*(kind.options for kind in _KINDS.values())), mask=True),
)
"""A model that is not known here: it gets what the others take."""


def find(model: str) -> ImageModel | None:
    """How the model is asked whose id stands in `model`, which may be an inference profile's or
    an ARN; None where it is none of Stability's."""
    found = _MODEL.search(model)
    if found:
        return _MODELS[found[1]]
    other = _ANY.search(model)
    if not other:
        return None
    return _LATER_DIFFUSION if other[1] else OTHER
