"""Images by Imagen's predict: https://ai.google.dev/gemini-api/docs/imagen and, for Vertex AI,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping

from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import objects_of, text_of
from kong_ai_proxy.formats.gemini import errors as gemini_errors
from kong_ai_proxy.formats.gemini import models as gemini_models
from kong_ai_proxy.formats.gemini.images import (
    blocked,
    large,
    output_options,
    ratio,
    unusable,
)
from kong_ai_proxy.formats.gemini.names import camel, camelized
from kong_ai_proxy.formats.images import Image, ImagesAnswer, ImagesRequest
from kong_ai_proxy.formats.sizes import Size

MOST = 4
"""Images of one request: sampleCount of the pages above."""

_RATIOS: tuple[Size, ...] = ((1, 1), (3, 4), (4, 3), (9, 16), (16, 9))
# The pages above: imageSize is for Imagen 4 Standard and Ultra.
_HAS_SIZES = re.compile(r"imagen-4(?!.*fast)")

# https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/Shared.Types/
# VisionGenerativeModelParams. Not storageUri: it would let clients choose where the operator's
# credentials write, and images would not come back.
_PARAMETERS = frozenset(
    {
        "addWatermark",
        "aspectRatio",
        "baseSteps",
        "editConfig",
        "editMode",
        "enhancePrompt",
        "guidanceScale",
        "includeRaiReason",
        "includeSafetyAttributes",
        "language",
        "negativePrompt",
        "outputOptions",
        "personGeneration",
        "safetySetting",
        "sampleImageSize",
        "seed",
    }
)


def is_imagen(model: str) -> bool:
    """Whether a model makes images by predict."""
    return gemini_models.short_name(model).startswith(("imagen", "imagegeneration"))


def request(wanted: ImagesRequest, count: int) -> Rendered:
    """The request for `count` images made from nothing, at most MOST. Raises FormatError."""
    dropped: list[str] = []
    parameters = _parameters(wanted, count, dropped)
    if wanted.size is not None:
        parameters = {"aspectRatio": ratio(wanted.size, _RATIOS), **parameters}
        if large(wanted.size) and _HAS_SIZES.match(gemini_models.short_name(wanted.model)):
            parameters = {"sampleImageSize": "2K", **parameters}
    return _rendered({"prompt": wanted.prompt}, parameters, wanted, dropped)


def edit_request(wanted: ImagesRequest, count: int) -> Rendered:
    """The request for `count` images made from another, of Vertex AI: https://cloud.google.com/
    vertex-ai/generative-ai/docs/model-reference/imagen-api-edit. The mask is white where to edit:
    https://firebase.google.com/docs/reference/kotlin/com/google/firebase/ai/type/ImagenRawMask.
    Raises FormatError."""
    if len(wanted.images) != 1:
        raise FormatError("image: Imagen edits one image; Gemini's models take several")
    dropped = [] if wanted.size is None else ["size"]
    parameters = _parameters(wanted, count, dropped)
    mode = "EDIT_MODE_DEFAULT" if wanted.mask is None else "EDIT_MODE_INPAINT_INSERTION"
    instance = {"prompt": wanted.prompt, "referenceImages": list(_references(wanted))}
    return _rendered(instance, {"editMode": mode, **parameters}, wanted, dropped)


def _references(wanted: ImagesRequest) -> Iterator[Mapping[str, object]]:
    yield _reference("REFERENCE_TYPE_RAW", 1, wanted.images[0].content)
    if wanted.mask is not None:
        yield {
            **_reference("REFERENCE_TYPE_MASK", 2, wanted.mask.content),
            "maskImageConfig": {"maskMode": "MASK_MODE_USER_PROVIDED"},
        }


def _reference(kind: str, number: int, content: bytes) -> dict[str, object]:
    image = {"bytesBase64Encoded": b64encode(content).decode()}
    return {"referenceType": kind, "referenceId": number, "referenceImage": image}


def _parameters(wanted: ImagesRequest, count: int, dropped: list[str]) -> dict[str, object]:
    """What the client says, under Imagen's names or within `parameters`, and how many."""
    if wanted.quality is not None:
        dropped.append("quality")
    if wanted.background == "transparent":
        dropped.append("background")
    found: dict[str, object] = {"includeRaiReason": True}
    options = output_options(wanted, dropped)
    if options:
        found["outputOptions"] = options
    for name, value in wanted.settings.items():
        if name == "parameters" and isinstance(value, dict):
            found |= _known(value, dropped)
        elif camel(name) in _PARAMETERS:
            found[camel(name)] = value
        elif name != "output_compression" and not (name == "labels" and isinstance(value, dict)):
            dropped.append(name)
    return {**found, "sampleCount": count}


def _known(parameters: Mapping[str, object], dropped: list[str]) -> dict[str, object]:
    given = camelized(parameters)
    dropped.extend(f"parameters.{name}" for name in given if name not in _PARAMETERS)
    return {name: value for name, value in given.items() if name in _PARAMETERS}


def _rendered(
    instance: Mapping[str, object],
    parameters: Mapping[str, object],
    wanted: ImagesRequest,
    dropped: list[str],
) -> Rendered:
    body: dict[str, object] = {"instances": [instance], "parameters": parameters}
    if isinstance(wanted.settings.get("labels"), dict):
        body["labels"] = wanted.settings["labels"]
    return Rendered(body, tuple(dropped))


# ---- answers


def answer(value: object) -> ImagesAnswer | ProviderError:
    """The images of an answer, parsed JSON; an error where there is none, which tells why. There
    may be fewer than were asked for: the others were filtered out."""
    error = gemini_errors.told(value)
    if error is not None:
        return error
    if not isinstance(value, dict) or (value and not isinstance(value.get("predictions"), list)):
        return unusable("expected an object with predictions")
    predictions = objects_of(value, "predictions")
    images = tuple(image for each in predictions for image in _image(each))
    if images:
        return ImagesAnswer(images=images)
    reasons = [text_of(each, "raiFilteredReason") for each in predictions]
    told = next((reason for reason in reasons if reason), "")
    return blocked("all images were filtered out", told)


def _image(prediction: Mapping[str, object]) -> Iterator[Image]:
    data = text_of(prediction, "bytesBase64Encoded")
    if data:
        prompt = text_of(prediction, "prompt") or None
        yield Image(data, "", prompt, text_of(prediction, "mimeType"))
