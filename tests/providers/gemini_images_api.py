"""Images of Gemini's API, public and on Vertex: generateContent of models that make images, and
predict of Imagen.

A request for content is checked as gemini_api does it, and for what its types do not hold:
https://ai.google.dev/gemini-api/docs/image-generation. A prediction is checked with models of the
SDK's own kind, put together from what its converters send and VisionGenerativeModelParams; answers
go through the converters that read them.

A Turn's `text` comes beside the image; `finish="content_filter"` refuses to make any, with
`text=""` the prompt already.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any, ClassVar, Final

from google.genai import models, types
from google.genai._common import BaseModel
from typing_extensions import override

from tests.providers import gemini_api, pictures
from tests.providers.strict import parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    json_reply,
    route,
)

_RATIOS: Final = re.compile("1:1|2:3|3:2|3:4|4:3|4:5|5:4|9:16|16:9|21:9")
_STRIPS: Final = re.compile("1:4|4:1|1:8|8:1")
_HAVE_NO_STRIPS: Final = re.compile(r"gemini-(2\.|3-pro-image)")
_IMAGEN_RATIOS: Final = re.compile("1:1|3:4|4:3|9:16|16:9")
_FILTERED: Final = (
    "Unable to show generated images. All images were filtered out because they violated Vertex "
    "AI's usage guidelines. Support codes: 63429089"
)


class _Bytes(BaseModel):
    bytes_base64_encoded: str
    mime_type: str | None = None


class _Reference(BaseModel):
    """models._ReferenceImageAPI_to_vertex"""

    reference_type: str
    reference_id: int
    reference_image: _Bytes | None = None
    mask_image_config: _MaskConfig | None = None


class _MaskConfig(BaseModel):
    """models._MaskReferenceConfig_to_vertex"""

    mask_mode: types.MaskReferenceMode
    mask_classes: list[int] | None = None
    dilation: float | None = None


class _Instance(BaseModel):
    prompt: str
    reference_images: list[_Reference] | None = None


class _OutputOptions(BaseModel):
    mime_type: str | None = None
    compression_quality: int | None = None


class _EditConfig(BaseModel):
    base_steps: int | None = None


class _Parameters(BaseModel):
    """https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/Shared.Types/
    VisionGenerativeModelParams"""

    sample_count: int
    sample_image_size: str | None = None
    aspect_ratio: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    person_generation: types.PersonGeneration | None = None
    safety_setting: types.SafetyFilterLevel | None = None
    include_rai_reason: bool | None = None
    include_safety_attributes: bool | None = None
    language: str | None = None
    output_options: _OutputOptions | None = None
    add_watermark: bool | None = None
    enhance_prompt: bool | None = None
    edit_mode: types.EditMode | None = None
    edit_config: _EditConfig | None = None


class _Predict(BaseModel):
    instances: list[_Instance]
    parameters: _Parameters
    labels: dict[str, str] | None = None


class GeminiImages(gemini_api.Gemini):
    """The Gemini API's models that make images."""

    ROUTES: ClassVar[Routes] = (
        *gemini_api.Gemini.ROUTES,
        (route("POST", "/v1(?:beta)?/models/{model}:predict"), "predict"),
    )

    @override
    def generate(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        body = parsed(request.body)
        self.check(body, model)
        _check_content(body, model)
        return json_reply(gemini_api._made(types.GenerateContentResponse, _content(turn, model)))

    def predict(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:predict of Imagen"""
        return _predicted(parsed(request.body), turn, model)


class VertexImages(gemini_api.Vertex):
    """Vertex's models that make images."""

    @override
    def generate(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        body = parsed(request.body)
        self.check(body, model)
        _check_content(body, model)
        return json_reply(gemini_api._made(types.GenerateContentResponse, _content(turn, model)))

    @override
    def predict(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:predict of Imagen"""
        return _predicted(parsed(request.body), turn, model)


# ---- generateContent


def _check_content(body: Json, model: str) -> None:
    config = body.get("generationConfig") or {}
    if config.get("candidateCount", 1) != 1:
        raise RefusedError(f"Multiple candidates is not enabled for models/{model}")
    if "IMAGE" not in config.get("responseModalities", ["TEXT", "IMAGE"]):
        raise RefusedError("the model makes images: responseModalities has no IMAGE")
    image = config.get("imageConfig") or {}
    ratio = image.get("aspectRatio", "1:1")
    is_strip = _STRIPS.fullmatch(ratio) and not _HAVE_NO_STRIPS.match(model)
    if not _RATIOS.fullmatch(ratio) and not is_strip:
        raise RefusedError(f"aspect_ratio: {image['aspectRatio']} is not supported")
    if "imageSize" in image and model.startswith("gemini-2"):
        raise RefusedError("image_size is not supported by this model")
    if image.get("imageSize", "1K") not in ("1K", "2K", "4K"):
        raise RefusedError(f"image_size: {image['imageSize']} is not supported")
    for content in body["contents"]:
        for part in content["parts"]:
            if "inlineData" in part:
                _decoded(part["inlineData"]["data"])


def _content(turn: Turn, model: str) -> Json:
    if turn.reason == "content_filter" and turn.text == "":
        return gemini_api._envelope(turn, model, None, 0)
    if turn.reason == "content_filter":
        candidate: Json = {"finishReason": "IMAGE_SAFETY"}
        if turn.text:
            candidate["finishMessage"] = turn.text
        return gemini_api._envelope(turn, model, candidate, 0)
    parts: list[Json] = [{"text": turn.text}] if turn.text else []
    if turn.reason == "stop":
        data = b64encode(pictures.PNG).decode()
        if turn.thinking:
            inline = {"mimeType": "image/png", "data": b64encode(pictures.MASK).decode()}
            parts.append({"inlineData": inline, "thought": True})
        parts.append({"inlineData": {"mimeType": "image/png", "data": data}})
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    value = gemini_api._envelope(turn, model, candidate, turn.usage.output)
    details = [{"modality": "IMAGE", "tokenCount": turn.usage.output}]
    value["usageMetadata"]["candidatesTokensDetails"] = details
    return value


# ---- predict


def _predicted(body: Json, turn: Turn, model: str) -> Reply:
    given = gemini_api._valid(_Predict, body)
    if not model.startswith("imagen"):
        raise RefusedError(f"models/{model} is not supported for predict", 404)
    if len(given.instances) != 1:
        raise RefusedError("Exactly one instance is expected")
    if not 1 <= given.parameters.sample_count <= 4:
        raise RefusedError("sampleCount must be between 1 and 4")
    if not _IMAGEN_RATIOS.fullmatch(given.parameters.aspect_ratio or "1:1"):
        raise RefusedError(f"aspect ratio {given.parameters.aspect_ratio} is not supported")
    if given.parameters.sample_image_size not in (None, "1K", "2K"):
        raise RefusedError("sampleImageSize must be 1K or 2K")
    _check_references(given, model)
    options = given.parameters.output_options or _OutputOptions()
    if options.mime_type not in (None, "image/png", "image/jpeg"):
        raise RefusedError("outputOptions.mimeType must be image/png or image/jpeg")
    value = _predictions(given, turn, options.mime_type or "image/png")
    made = models._GenerateImagesResponse_from_vertex(value)
    gemini_api._valid(types.GenerateImagesResponse, _jsonable(made))
    return json_reply(value)


def _check_references(given: Any, model: str) -> None:
    """https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api-edit"""
    references = given.instances[0].reference_images
    if (references is not None) != ("capability" in model):
        raise RefusedError("referenceImages are for imagen-3.0-capability-001, and only for it")
    if references is None:
        return
    if given.parameters.edit_mode is None:
        raise RefusedError("editMode is required")
    for reference in references:
        content = _decoded(reference.reference_image.bytes_base64_encoded)
        is_mask = reference.reference_type == "REFERENCE_TYPE_MASK"
        if is_mask != (reference.mask_image_config is not None):
            raise RefusedError("maskImageConfig is for REFERENCE_TYPE_MASK")
        if is_mask and not set(pictures.pixels(content)) <= {0, 255}:
            raise RefusedError("the mask must be black and white")
    if len({reference.reference_id for reference in references}) != len(references):
        raise RefusedError("referenceId must be unique")


def _predictions(given: Any, turn: Turn, media_type: str) -> Json:
    if turn.reason == "content_filter":
        reason = {"raiFilteredReason": _FILTERED} if given.parameters.include_rai_reason else {}
        return {"predictions": [reason]} if reason else {}
    content = pictures.JPEG if media_type == "image/jpeg" else pictures.PNG
    image: Json = {"mimeType": media_type, "bytesBase64Encoded": b64encode(content).decode()}
    if given.parameters.enhance_prompt:
        image["prompt"] = f"{given.instances[0].prompt}, in detail"
    return {"predictions": [image] * given.parameters.sample_count}


def _decoded(data: str) -> bytes:
    """Both of base64's alphabets are taken: https://protobuf.dev/programming-guides/json."""
    return pictures.decoded(data, b"-_" if "-" in data or "_" in data else None)


def _jsonable(value: Any) -> Any:
    """What the SDK's converters make, with bytes as JSON has them."""
    if isinstance(value, dict):
        return {name: _jsonable(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_jsonable(each) for each in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value
