"""Models of Bedrock that make images, as InvokeModel has them: Amazon's Titan Image Generator and
Nova Canvas, and Stability's.

Bodies are checked with the TypedDicts below, written from the pages they cite; images and masks are
looked into. What comes back are PNG files of the size asked for, of one colour that the seed and
the prompt choose; JPEG and WebP only begin. A Turn that finishes with `content_filter` is answered
as those pages say that filters do, with 200.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Required

from pydantic import Field
from typing_extensions import TypedDict

from tests.providers.pictures import JPEG
from tests.providers.strict import Validator
from tests.providers.upstream import Json, RefusedError, Turn

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_FILES: Final = {"jpeg": JPEG, "webp": b"RIFF\x10\0\0\0WEBPVP8 "}
"""The beginnings of some."""
_FILTERED: Final = "This request has been blocked by our content filters."

# ---- Amazon
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-image.html
# https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html

_Text = Annotated[str, Field(min_length=1, max_length=1024)]
_Strength = Annotated[float, Field(ge=0, le=1)]


class _TextToImage(TypedDict, total=False):
    text: Required[_Text]
    negativeText: _Text
    conditionImage: str
    controlMode: Literal["CANNY_EDGE", "SEGMENTATION"]
    controlStrength: _Strength
    style: Literal[
        "3D_ANIMATED_FAMILY_FILM",
        "DESIGN_SKETCH",
        "FLAT_VECTOR_ILLUSTRATION",
        "GRAPHIC_NOVEL_ILLUSTRATION",
        "MAXIMALISM",
        "MIDCENTURY_RETRO",
        "PHOTOREALISM",
        "SOFT_DIGITAL_PAINTING",
    ]


class _ColorGuided(TypedDict, total=False):
    text: Required[_Text]
    negativeText: _Text
    referenceImage: str
    colors: Required[Annotated[list[str], Field(min_length=1, max_length=10)]]


class _Variation(TypedDict, total=False):
    images: Required[Annotated[list[str], Field(min_length=1, max_length=5)]]
    text: _Text
    negativeText: _Text
    similarityStrength: Annotated[float, Field(ge=0.2, le=1)]


class _InPainting(TypedDict, total=False):
    image: Required[str]
    text: _Text
    negativeText: _Text
    maskPrompt: str
    maskImage: str
    returnMask: bool


class _OutPainting(TypedDict, total=False):
    image: Required[str]
    text: Required[_Text]
    negativeText: _Text
    maskPrompt: str
    maskImage: str
    returnMask: bool
    outPaintingMode: Literal["DEFAULT", "PRECISE"]


class _Background(TypedDict):
    image: str


class _ImageMask(TypedDict):
    maskImage: str


class _PromptMask(TypedDict, total=False):
    maskShape: Literal["CONTOUR", "BOUNDING_BOX", "DEFAULT"]
    maskPrompt: Required[str]


class _TryOn(TypedDict, total=False):
    """https://docs.aws.amazon.com/nova/latest/userguide/image-gen-vto.html"""

    sourceImage: Required[str]
    referenceImage: Required[str]
    maskType: Required[Literal["IMAGE", "GARMENT", "PROMPT"]]
    imageBasedMask: _ImageMask
    promptBasedMask: _PromptMask
    mergeStyle: Literal["BALANCED", "SEAMLESS", "DETAILED"]


class _Config(TypedDict, total=False):
    quality: Literal["standard", "premium"]
    numberOfImages: Annotated[int, Field(ge=1, le=5)]
    cfgScale: Annotated[float, Field(ge=1.1, le=10)]
    seed: Annotated[int, Field(ge=0, le=858993459)]


class _SizedConfig(_Config, total=False):
    width: int
    height: int


class _Task(TypedDict):
    taskType: str


class _Body(TypedDict, total=False):
    taskType: Required[str]
    imageGenerationConfig: _Config


class _SizedBody(TypedDict, total=False):
    taskType: Required[str]
    imageGenerationConfig: _SizedConfig


_TASKS: Final[Mapping[str, tuple[str, Any, Any]]] = {
    "TEXT_IMAGE": ("textToImageParams", _TextToImage, _SizedBody),
    "COLOR_GUIDED_GENERATION": ("colorGuidedGenerationParams", _ColorGuided, _SizedBody),
    "IMAGE_VARIATION": ("imageVariationParams", _Variation, _SizedBody),
    "INPAINTING": ("inPaintingParams", _InPainting, _Body),
    "OUTPAINTING": ("outPaintingParams", _OutPainting, _Body),
    "BACKGROUND_REMOVAL": ("backgroundRemovalParams", _Background, _Task),
    "VIRTUAL_TRY_ON": ("virtualTryOnParams", _TryOn, _Body),
}
_VALIDATORS: Final[Mapping[str, tuple[str, Validator, Validator]]] = {
    name: (params, Validator(kind), Validator(body))
    for name, (params, kind, body) in _TASKS.items()
}
_TITAN_SIZES: Final = frozenset(
    [
        "1024x1024",
        "768x768",
        "512x512",
        "768x1152",
        "384x576",
        "1152x768",
        "576x384",
        "768x1280",
        "384x640",
        "1280x768",
        "640x384",
        "896x1152",
        "448x576",
        "1152x896",
        "576x448",
        "768x1408",
        "384x704",
        "1408x768",
        "704x384",
        "640x1408",
        "320x704",
        "1408x640",
        "704x320",
        "1152x640",
        "1173x640",
    ]
)


def _amazon(body: Json, model: str, turn: Turn) -> Json:
    titan = "titan" in model
    if body.get("taskType") not in _TASKS or (titan and body["taskType"] == "VIRTUAL_TRY_ON"):
        raise RefusedError(f"{body.get('taskType')} is not supported for taskType")
    name, params, rest = _VALIDATORS[body["taskType"]]
    asked = body.get(name)
    if not isinstance(asked, dict):
        raise RefusedError(f"{name} is missing")
    params.check(asked)
    rest.check({key: value for key, value in body.items() if key != name})
    if titan and (len(asked.get("text", "")) > 512 or "style" in asked):
        raise RefusedError("400 Bad Request: text is longer than 512, or style was given")
    _check_amazon_images(asked)
    config = body.get("imageGenerationConfig", {})
    size = _amazon_size(asked, config, titan)
    if turn.reason == "content_filter":
        return {"images": [], "error": _FILTERED}
    count, seed = config.get("numberOfImages", 1), config.get("seed", 12)
    return {"images": [_drawn(size, (seed, at, asked.get("text"))) for at in range(count)]}


def _check_amazon_images(asked: Json) -> None:
    image = asked.get("image", asked.get("sourceImage"))
    named = ("conditionImage", "referenceImage", "image", "sourceImage")
    for text in (*(asked[name] for name in named if name in asked), *asked.get("images", [])):
        _looked_at(text, ("png", "jpeg"))
    mask = asked.get("imageBasedMask", asked).get("maskImage")
    if mask is not None:
        _check_mask(mask, image)
    if "outPaintingMode" in asked or "returnMask" in asked or "image" in asked:
        given = [name for name in ("maskImage", "maskPrompt") if name in asked]
        if len(given) != 1 and len(asked) > 1:
            raise RefusedError("expected one of maskImage and maskPrompt, and not both")


def _amazon_size(asked: Json, config: Json, titan: bool) -> tuple[int, int]:
    """https://docs.aws.amazon.com/nova/latest/userguide/image-gen-access.html#image-gen-resolutions"""
    if "image" in asked or "sourceImage" in asked:
        return _looked_at(asked.get("image", asked.get("sourceImage")), ("png", "jpeg")) or (64, 64)
    width, height = config.get("width", 1024), config.get("height", 1024)
    if titan:
        if f"{width}x{height}" not in _TITAN_SIZES:
            raise RefusedError(f"{width}x{height} is not a supported size")
        return width, height
    sides = all(320 <= side <= 4096 and side % 16 == 0 for side in (width, height))
    if not sides or width * height > 4194304 or max(width, height) > 4 * min(width, height):
        raise RefusedError(f"{width}x{height}: unsupported image size")
    return width, height


# ---- Stability
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-3-5-large.html
# https://docs.aws.amazon.com/bedrock/latest/userguide/stable-image-services.html

_Prompt = Annotated[str, Field(max_length=10000)]
_Ratio = Literal["16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"]
_Grow = Annotated[int, Field(ge=0, le=20)]
_Pixels = Annotated[int, Field(ge=0, le=2000)]
_Preset = Literal[
    "3d-model",
    "analog-film",
    "anime",
    "cinematic",
    "comic-book",
    "digital-art",
    "enhance",
    "fantasy-art",
    "isometric",
    "line-art",
    "low-poly",
    "modeling-compound",
    "neon-punk",
    "origami",
    "photographic",
    "pixel-art",
    "tile-texture",
]


class _Any(TypedDict, total=False):
    output_format: Literal["jpeg", "png", "webp"]


class _Seeded(_Any, total=False):
    seed: Annotated[int, Field(ge=0, le=4294967294)]


class _Prompted(_Seeded, total=False):
    prompt: Required[_Prompt]
    negative_prompt: _Prompt


class _Generation(TypedDict, total=False):
    prompt: Required[_Prompt]
    negative_prompt: _Prompt
    aspect_ratio: _Ratio
    mode: Literal["text-to-image"]
    seed: Annotated[int, Field(ge=0, le=4294967294)]
    output_format: Literal["jpeg", "png"]


class _ImageToImage(TypedDict, total=False):
    prompt: Required[_Prompt]
    image: Required[str]
    strength: Required[_Strength]
    mode: Required[Literal["image-to-image"]]
    negative_prompt: _Prompt
    seed: Annotated[int, Field(ge=0, le=4294967294)]
    output_format: Literal["jpeg", "png"]


class _Inpaint(_Prompted, total=False):
    image: Required[str]
    mask: str
    grow_mask: _Grow
    style_preset: _Preset


class _Outpaint(_Seeded, total=False):
    image: Required[str]
    prompt: _Prompt
    style_preset: _Preset
    creativity: Annotated[float, Field(ge=0.1, le=1)]
    left: _Pixels
    right: _Pixels
    up: _Pixels
    down: _Pixels


class _Recolor(_Prompted, total=False):
    image: Required[str]
    select_prompt: Required[_Prompt]
    grow_mask: _Grow
    style_preset: _Preset


class _Replace(_Prompted, total=False):
    image: Required[str]
    search_prompt: Required[_Prompt]
    grow_mask: _Grow
    style_preset: _Preset


class _Erase(_Seeded, total=False):
    image: Required[str]
    mask: str
    grow_mask: _Grow


class _Alone(_Any, total=False):
    image: Required[str]


class _Control(_Prompted, total=False):
    image: Required[str]
    control_strength: _Strength
    style_preset: _Preset


class _StyleGuide(_Prompted, total=False):
    image: Required[str]
    aspect_ratio: _Ratio
    fidelity: _Strength
    style_preset: _Preset


class _StyleTransfer(_Seeded, total=False):
    init_image: Required[str]
    style_image: Required[str]
    prompt: _Prompt
    negative_prompt: _Prompt
    composition_fidelity: _Strength
    style_strength: _Strength
    change_strength: Annotated[float, Field(ge=0.1, le=1)]


class _Creative(_Prompted, total=False):
    image: Required[str]
    creativity: Annotated[float, Field(ge=0.1, le=0.5)]
    style_preset: _Preset


class _Conservative(_Prompted, total=False):
    image: Required[str]
    creativity: Annotated[float, Field(ge=0.1, le=0.5)]


_STABILITY: Final[Mapping[str, Any]] = {
    "stable-image-core": _Generation,
    "stable-image-ultra": _Generation,
    "sd3-large": _Generation,
    "sd3-5-large": _Generation,
    "stable-image-inpaint": _Inpaint,
    "stable-outpaint": _Outpaint,
    "stable-image-search-recolor": _Recolor,
    "stable-image-search-replace": _Replace,
    "stable-image-erase-object": _Erase,
    "stable-image-remove-background": _Alone,
    "stable-fast-upscale": _Alone,
    "stable-image-control-sketch": _Control,
    "stable-image-control-structure": _Control,
    "stable-image-style-guide": _StyleGuide,
    "stable-style-transfer": _StyleTransfer,
    "stable-creative-upscale": _Creative,
    "stable-conservative-upscale": _Conservative,
}
_STABILITY_MODELS: Final = re.compile(rf"stability\.({'|'.join(_STABILITY)})-v")
_STABILITY_VALIDATORS: Final = {name: Validator(kind) for name, kind in _STABILITY.items()}
_IMAGE_TO_IMAGE: Final = Validator(_ImageToImage)


def _stability(body: Json, model: str, turn: Turn) -> Json:
    found = _STABILITY_MODELS.search(model)
    if not found:
        raise RefusedError("The provided model identifier is invalid.")
    changes = found[1].startswith("sd3") and body.get("mode") == "image-to-image"
    (_IMAGE_TO_IMAGE if changes else _STABILITY_VALIDATORS[found[1]]).check(body)
    for name in ("image", "init_image", "style_image"):
        if name in body:
            size = _looked_at(body[name], ("png", "jpeg", "webp"))
            if size and min(size) < 64:
                raise RefusedError(f"{name}: every side must be at least 64 pixels")
    if "mask" in body:
        _check_mask(body["mask"], None)
    if found[1] == "stable-outpaint" and not any(
        body.get(name) for name in ("left", "right", "up", "down")
    ):
        raise RefusedError("at least one outpaint direction must be supplied")
    if turn.reason == "content_filter":
        return {"finish_reasons": ["Filter reason: prompt"]}
    width, height = (int(side) for side in body.get("aspect_ratio", "1:1").split(":"))
    image = _drawn((width * 64, height * 64), (body.get("seed", 0), body.get("prompt")))
    if body.get("output_format") in _FILES:
        image = base64.b64encode(_FILES[body["output_format"]]).decode()
    return {"seeds": [body.get("seed") or 2130420379], "finish_reasons": [None], "images": [image]}


# ---- files


def _looked_at(text: Any, formats: tuple[str, ...]) -> tuple[int, int] | None:
    """The size of an image in base64 that is a PNG file. Raises RefusedError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError):
        raise RefusedError("Image format is not base64") from None
    kinds = {
        "png": data.startswith(_PNG),
        "jpeg": data.startswith(b"\xff\xd8\xff"),
        "webp": data[8:12] == b"WEBP",
    }
    if not any(kinds[name] for name in formats):
        raise RefusedError(f"the image is none of {', '.join(formats)}")
    if not kinds["png"]:
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def mask_pixels(text: str) -> list[bytes]:
    """The rows of a mask in base64, a byte each pixel: 0 for black, 255 for white. Raises
    RefusedError for other colours. Reads PNG files whose rows are not filtered."""
    data = base64.b64decode(text, validate=True)
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    at, packed = 33, b""
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        packed += data[at + 8 : at + 8 + size] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += size + 12
    rows = zlib.decompress(packed)
    if (depth, colours) != (8, 2) or len(rows) != height * (1 + 3 * width):
        raise RefusedError("the mask has to be RGB with 8 bits each channel")
    found = [rows[at + 1 : at + 1 + 3 * width] for at in range(0, len(rows), 1 + 3 * width)]
    for row in found:
        pixels = {row[at : at + 3] for at in range(0, len(row), 3)}
        if pixels - {b"\0\0\0", b"\xff\xff\xff"}:
            raise RefusedError("the mask has to be pure black and pure white")
    return [row[::3] for row in found]


def _check_mask(text: Any, image: Any) -> None:
    size = _looked_at(text, ("png", "jpeg"))
    mask_pixels(text)
    of_image = size if image is None else _looked_at(image, ("png", "jpeg"))
    if of_image is not None and of_image != size:
        raise RefusedError("the mask has to be as large as the image")


def _drawn(size: tuple[int, int], about: object) -> str:
    """A PNG file of one colour, in base64."""
    colour = zlib.crc32(repr(about).encode()).to_bytes(4, "big")[:3]
    rows = (b"\0" + colour * size[0]) * size[1]
    head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return base64.b64encode(_PNG + b"".join(chunks)).decode()


# ---- for bedrock_api


def makes_images(model: str) -> bool:
    """Whether a model is one of these."""
    return bool(re.search(r"amazon\.(titan-image-generator|nova-canvas)|stability\.", model))


def invoked(body: Json, model: str, turn: Turn) -> Json:
    """The answer of such a model. Raises RefusedError."""
    return (_stability if "stability." in model else _amazon)(body, model, turn)
