"""What the stand-in provider accepts as an order for images, by model; the rest is an error 400.

Follows the API reference of OpenAI's images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Rule,
    check_length,
    check_params,
    wrong_value,
)

_STRING: Final = Rule("a string")
_FORMATS: Final = ("png", "webp", "jpeg", "gif", "svg")
_COMMON: Final[dict[str, Rule]] = {
    "background": Rule("a string", options=("transparent", "opaque", "auto")),
    "complexity": Rule("a string", options=("low", "medium", "high")),
    "frame_count": Rule("an integer", 1),
    "frame_duration_ms": Rule("an integer", 1),
    "model": _STRING,
    "n": Rule("an integer", 1, 10),
    "output_compression": Rule("an integer", 0, 100),
    "output_format": Rule("a string", options=_FORMATS),
    "partial_images": Rule("an integer", 0, 3),
    "prompt": _STRING,
    "quality": _STRING,
    "response_format": Rule("a string", options=("url", "b64_json")),
    "safety_identifier": _STRING,
    "size": _STRING,
    "stream": Rule("a boolean"),
    "svg": Rule("an object"),
    "user": _STRING,
}
_MODERATION: Final = Rule("a string", options=("low", "auto"))
GENERATION_RULES: Final[dict[str, Rule]] = {
    **_COMMON,
    "moderation": _MODERATION,
    "style": Rule("a string", options=("vivid", "natural")),
}
EDIT_RULES: Final[dict[str, Rule]] = {
    **_COMMON,
    "input_fidelity": Rule("a string", options=("high", "low")),
}
EDIT_JSON_RULES: Final[dict[str, Rule]] = {
    **{name: rule for name, rule in EDIT_RULES.items() if name != "response_format"},
    "images": Rule("an array"),
    "mask": Rule("an object"),
    "moderation": _MODERATION,
}

_GPT_ONLY: Final = (
    "background",
    "complexity",
    "frame_count",
    "frame_duration_ms",
    "input_fidelity",
    "moderation",
    "output_compression",
    "output_format",
    "partial_images",
    "stream",
    "svg",
)
_SQUARES: Final = ("256x256", "512x512", "1024x1024")
_WIDE: Final = ("1024x1024", "1792x1024", "1024x1792")
_GPT_SIZES: Final = ("1024x1024", "1024x1536", "1536x1024", "auto")
_GPT_QUALITIES: Final = ("low", "medium", "high", "xhigh", "max", "auto")
_MOST_PIXELS: Final = 3840 * 2160
_LONGEST: Final = {"dall-e-2": 1000, "dall-e-3": 4000}
_GPT_LONGEST: Final = 32000
# Of a square of 1,024 pixels, from OpenAI's guide "Image generation", "Cost and latency".
_TOKENS: Final = {"low": 272, "medium": 1056, "high": 4160, "xhigh": 4160, "max": 4160}


@dataclass(frozen=True)
class Order:
    """A checked order: what to draw, and how to answer."""

    model: str
    prompt: str
    n: int
    width: int
    height: int
    quality: str
    transparent: bool
    url: bool
    stream: bool
    partials: int

    @property
    def dall_e(self) -> bool:
        return self.model.startswith("dall-e")

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def tokens(self) -> int:
        """How many tokens all its images are."""
        square = self.width * self.height / 1024**2
        return self.n * round(_TOKENS[self.quality] * square)


def order(body: Json, rules: dict[str, Rule], required: tuple[str, ...] = ("prompt",)) -> Order:
    """Check a request. Raises ApiError 400."""
    given = check_params(body, rules, required)
    model = given.get("model") or _default(given)
    given["model"] = model
    check_length("prompt", given["prompt"], _LONGEST.get(model, _GPT_LONGEST), least=1)
    _check_for_model(given, model)
    _check_output(given)
    width, height = _size(given, model)
    quality = given.get("quality", "auto")
    default = "url" if model.startswith("dall-e") else "b64_json"
    return Order(
        model,
        given["prompt"],
        given.get("n", 1),
        width,
        height,
        quality if quality in _TOKENS else "medium",
        given.get("background") == "transparent",
        given.get("response_format", default) == "url",
        given.get("stream", False),
        given.get("partial_images", 0),
    )


def _default(given: Json) -> str:
    """Dall-e 2, "unless a parameter specific to the GPT image models is used"."""
    return "gpt-image-1" if any(name in given for name in _GPT_ONLY) else "dall-e-2"


def _check_for_model(given: Json, model: str) -> None:
    dall_e = model.startswith("dall-e")
    strange = [name for name in given if dall_e and name in _GPT_ONLY]
    if "style" in given and model != "dall-e-3":
        strange.append("style")
    if "response_format" in given and model.startswith(("gpt-image", "chatgpt-image")):
        strange.append("response_format")
    if strange:
        message = f"Unknown parameter: '{strange[0]}'."
        raise ApiError(400, message, param=strange[0], code="unknown_parameter")
    if model == "dall-e-3" and given.get("n", 1) > 1:
        raise ApiError(400, "You must provide n=1 for this model.", param="n")
    options = {"dall-e-2": ("standard", "auto"), "dall-e-3": ("standard", "hd", "auto")}
    qualities = options.get(model, _GPT_QUALITIES)
    if given.get("quality", "auto") not in qualities:
        raise wrong_value("quality", given["quality"], qualities)


def _check_output(given: Json) -> None:
    wanted = given.get("output_format", "png")
    if wanted != "png":
        raise ApiError(
            400,
            f"The stand-in provider draws PNG only: '{wanted}' is not supported here.",
            param="output_format",
            code="unsupported_value",
        )
    if given.get("output_compression", 100) != 100:
        raise ApiError(
            400,
            "Compression less than 100 is not supported for PNG output format.",
            param="output_compression",
        )


def _size(given: Json, model: str) -> tuple[int, int]:
    size = given.get("size", "1024x1024" if model.startswith("dall-e") else "auto")
    named = {"dall-e-2": _SQUARES, "dall-e-3": _WIDE}
    any_size = model not in named and not model.startswith(("gpt-image-1", "chatgpt-image"))
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if any_size and found is not None:
        return _free_size(int(found[1]), int(found[2]))
    options = named.get(model, _GPT_SIZES)
    if size not in options:
        raise wrong_value("size", size, options)
    if size == "auto":
        return 1024, 1024
    width, height = size.split("x")
    return int(width), int(height)


def _free_size(width: int, height: int) -> tuple[int, int]:
    small, large = sorted((width, height))
    if not small or small % 16 or large % 16 or large > small * 3 or width * height > _MOST_PIXELS:
        raise ApiError(
            400,
            f"Invalid size '{width}x{height}'. Width and height must both be divisible by 16, the "
            "aspect ratio between 1:3 and 3:1, and the resolution at most 3840x2160.",
            param="size",
            code="invalid_value",
        )
    return width, height
