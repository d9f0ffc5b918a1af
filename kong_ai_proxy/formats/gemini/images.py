"""Images by generateContent: https://ai.google.dev/gemini-api/docs/image-generation, and the same
of Vertex AI: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/image-generation.

A model makes one image a request: "Multiple candidates is not enabled" for those that make images
(https://github.com/google-gemini/gemini-cli/issues/10370).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Literal

from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import object_of, objects_of, text_of
from kong_ai_proxy.formats.gemini import errors as gemini_errors
from kong_ai_proxy.formats.gemini import models as gemini_models
from kong_ai_proxy.formats.gemini.names import camel, merged
from kong_ai_proxy.formats.gemini.usage import usage
from kong_ai_proxy.formats.images import (
    BLOCKED,
    BLOCKED_TYPE,
    JPEG,
    PNG,
    Image,
    ImagesAnswer,
    ImagesRequest,
)
from kong_ai_proxy.formats.sizes import Size, nearest

Api = Literal["gemini", "vertex"]
"""Which of the two: they differ in what they take."""

_Object = Mapping[str, object]

# https://googleapis.github.io/js-genai/release_docs/interfaces/
# interactions_client.GeminiNextGenAPIClient.Interactions.ImageConfig.html, and imageConfig of
# https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerationConfig
_RATIOS: tuple[Size, ...] = (
    (1, 1),
    (2, 3),
    (3, 2),
    (3, 4),
    (4, 3),
    (4, 5),
    (5, 4),
    (9, 16),
    (16, 9),
    (21, 9),
)
# https://ai.google.dev/gemini-api/docs/image-generation: these came with 3.1 Flash Image.
_MORE_RATIOS: tuple[Size, ...] = (*_RATIOS, (1, 4), (4, 1), (1, 8), (8, 1))
_TEN_RATIOS = re.compile(r"gemini-(?:2\.|3-pro)")
# The same pages: 1K, 2K and 4K are about that many pixels a side, 1K is what is made unasked. In
# between counts what the area is nearer to.
_LARGE = ((2896 * 2896, "4K"), (1448 * 1448, "2K"))
# https://ai.google.dev/gemini-api/docs/image-generation: 2.0 makes squares only, imageSize is
# known from 3 on.
_ONE_RATIO = re.compile(r"gemini-2\.0")
_ONE_SIZE = re.compile(r"gemini-2\.")

_PASSED = frozenset(
    {
        "cachedContent",
        "generationConfig",
        "labels",
        "modelArmorConfig",
        "safetySettings",
        "serviceTier",
        "systemInstruction",
        "toolConfig",
        "tools",
    }
)
_OUTPUT_TYPES = {"png": PNG, "jpeg": JPEG}
_COMPRESSION = "output_compression"
_UNTOLD = frozenset({"", "FINISH_REASON_UNSPECIFIED", "STOP"})
_BAD_REQUEST = 400
_BAD_GATEWAY = 502


def request(wanted: ImagesRequest, api: Api) -> Rendered:
    """The request for one image, whatever `wanted.n` is. The ratio is the one that is nearest to
    the size that was asked for; what the client says in `generationConfig` itself wins. Raises
    FormatError."""
    if wanted.mask is not None:
        raise FormatError(
            "mask: Gemini's models take none: say in the prompt what is to change, or use "
            "imagen-3.0-capability-001 on Vertex AI"
        )
    dropped = list(_without_meaning(wanted))
    config = _image_config(wanted, api, dropped)
    generation: dict[str, object] = {"responseModalities": ["TEXT", "IMAGE"]}
    if config:
        generation["imageConfig"] = config
    body: dict[str, object] = {
        "contents": [{"role": "user", "parts": list(_parts(wanted))}],
        "generationConfig": generation,
    }
    passed = {}
    for name, value in wanted.settings.items():
        if camel(name) in _PASSED:
            passed[name] = value
        elif name != _COMPRESSION:
            dropped.append(name)
    return Rendered(merged(body, passed), tuple(dropped))


def _parts(wanted: ImagesRequest) -> Iterator[_Object]:
    yield {"text": wanted.prompt}
    for image in wanted.images:
        data = b64encode(image.content).decode()
        yield {"inlineData": {"mimeType": image.media_type, "data": data}}


def _without_meaning(wanted: ImagesRequest) -> Iterator[str]:
    if wanted.quality is not None:
        yield "quality"
    if wanted.background == "transparent":
        yield "background"


def _image_config(wanted: ImagesRequest, api: Api, dropped: list[str]) -> dict[str, object]:
    name = gemini_models.short_name(wanted.model)
    config: dict[str, object] = {}
    if wanted.size is not None and _ONE_RATIO.match(name):
        dropped.append("size")
    elif wanted.size is not None:
        known = _RATIOS if _TEN_RATIOS.match(name) else _MORE_RATIOS
        config["aspectRatio"] = ratio(wanted.size, known)
        size = large(wanted.size)
        if size and not _ONE_SIZE.match(name):
            config["imageSize"] = size
    output = output_options(wanted, dropped, has_any=api == "vertex")
    if output:
        config["imageOutputOptions"] = output
    return config


def ratio(size: Size, known: tuple[Size, ...]) -> str:
    """The nearest of the ratios that a model makes, in Google's words."""
    width, height = nearest(size, known)
    return f"{width}:{height}"


def large(size: Size) -> str:
    """`2K` or `4K` for images of about that size, "" for those of 1K or less."""
    area = size[0] * size[1]
    return next((name for least, name in _LARGE if area >= least), "")


def output_options(
    wanted: ImagesRequest, dropped: list[str], *, has_any: bool = True
) -> dict[str, object]:
    """Google's options for the file, of which the Gemini API has none for generateContent. WebP is
    not made: that is named in `dropped`."""
    media_type = _OUTPUT_TYPES.get(wanted.output_format or "")
    compression = wanted.settings.get(_COMPRESSION)
    options: dict[str, object] = {}
    if media_type and has_any:
        options["mimeType"] = media_type
    elif wanted.output_format not in (None, "png"):
        dropped.append("output_format")
    if compression is not None and options.get("mimeType") == JPEG:
        options["compressionQuality"] = compression
    elif compression is not None:
        dropped.append(_COMPRESSION)
    return options


# ---- answers


def answer(value: object) -> ImagesAnswer | ProviderError:
    """The images of an answer, parsed JSON; an error where there is none, which tells why.

    Text that comes beside an image is left out: OpenAI's answer has no place for it.
    """
    error = gemini_errors.told(value)
    if error is not None:
        return error
    if not isinstance(value, dict):
        return unusable("expected a JSON object")
    candidates = objects_of(value, "candidates")
    images = tuple(image for each in candidates for image in _images(each))
    if not images:
        return _no_image(value, candidates)
    counts = object_of(value, "usageMetadata")
    return ImagesAnswer(images=images, usage=usage(counts) if counts else None)


def _images(candidate: _Object) -> Iterator[Image]:
    """Its images, but for those that the model only thought of."""
    for part in objects_of(object_of(candidate, "content"), "parts"):
        data = object_of(part, "inlineData")
        media_type = text_of(data, "mimeType")
        if text_of(data, "data") and media_type.startswith("image/") and not part.get("thought"):
            yield Image(base64=text_of(data, "data"), media_type=media_type)


def _no_image(value: _Object, candidates: list[_Object]) -> ProviderError:
    feedback = object_of(value, "promptFeedback")
    reason = text_of(feedback, "blockReason")
    if reason:
        told = text_of(feedback, "blockReasonMessage")
        return blocked(f"the prompt was blocked: {reason}", told)
    if not candidates:
        return unusable("it has neither candidates nor a reason why")
    first = candidates[0]
    reason = text_of(first, "finishReason")
    told = text_of(first, "finishMessage") or _said(first)
    if reason in _UNTOLD:
        return blocked("the model made no image", told)
    return blocked(f"the model made no image: {reason}", told)


def _said(candidate: _Object) -> str:
    parts = objects_of(object_of(candidate, "content"), "parts")
    return "".join(text_of(part, "text") for part in parts if not part.get("thought"))[:2000]


def blocked(what: str, told: str) -> ProviderError:
    """For an image that the provider does not make, in its own words where it has any and with
    the kind and code that OpenAI has for it."""
    message = f"{what}: {told}" if told else what
    return ProviderError(message, type=BLOCKED_TYPE, status=_BAD_REQUEST, code=BLOCKED)


def unusable(why: str) -> ProviderError:
    """For an answer that makes no sense."""
    return ProviderError(f"the provider's answer is not usable: {why}", status=_BAD_GATEWAY)
