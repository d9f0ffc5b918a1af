"""Images of Bedrock: one call of InvokeModel, or several in a row where the model makes fewer
images at once than the client wants.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

from kong_ai_proxy.formats.bedrock import CONVERSE, stability
from kong_ai_proxy.formats.bedrock.images import NOVA, ImageModel, amazon_model, size_told
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.images import ImagesAnswer, ImagesRequest
from kong_ai_proxy.providers import images
from kong_ai_proxy.providers.bedrock.paths import model_path
from kong_ai_proxy.providers.flow import (
    MAX_MEDIA,
    ProviderFailed,
    Send,
    Step,
    Wanted,
    parsed,
    sent,
    unusable,
)


def _make(request: ImagesRequest, wanted: Wanted) -> Generator[Step, Any, images.Made]:
    model = _model(request)
    path = model_path(request.model, "invoke")
    mask = None
    if request.mask is not None:
        white = model.white_is_edited(request)
        mask = yield from images.black_and_white(request.mask, white=white)
    order = model.render(request, mask)
    answer = yield from images.gathered(_invoked(model, path, body) for body in order.bodies)
    told = {"size": size_told(answer.images[0]), "quality": request.quality}
    return images.Made(replace(answer, settings=told), order.dropped)


def _invoked(
    model: ImageModel, path: str, body: Mapping[str, object]
) -> Generator[Step, Any, ImagesAnswer]:
    send = Send("POST", path, body=images.dumped(body), most=MAX_MEDIA)
    found = model.parse(parsed((yield from sent(send, CONVERSE.parse_error))))
    if isinstance(found, ProviderError):
        raise ProviderFailed(found)
    if not found:
        raise unusable("it has no image")
    return ImagesAnswer(images=found)


def _model(request: ImagesRequest) -> ImageModel:
    """How the model is asked that the request names."""
    name = request.model
    found = amazon_model(name) or stability.find(name) or _unnamed(request)
    if found is None:
        raise FormatError(
            "model: expected the id of a model of Bedrock's that makes images "
            "(amazon.titan-image-generator-..., amazon.nova-canvas-..., stability....), or of an "
            "inference profile or an ARN that has it, "
            + (f"got {name[:100]!r}" if name else "it is missing")
        )
    return found


# What the ARN of a model that was bought or made apart, or of a profile, does not tell: whose
# model it is. https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-use.html
_PROFILE = "application-inference-profile"
_UNNAMED = re.compile(
    rf"arn:[^/]*:bedrock:[^/]*:({_PROFILE}|provisioned-model|custom-model-deployment)/[a-z0-9]+"
)


def _unnamed(request: ImagesRequest) -> ImageModel | None:
    """For an ARN that names no model. Only Amazon's can be trained or be bought by the hour; a
    profile has Stability's, which are those that are left, unless the client speaks as Amazon's
    want it."""
    found = _UNNAMED.fullmatch(request.model)
    if not found:
        return None
    if found[1] != _PROFILE or NOVA.is_asked_for(request):
        return NOVA
    return stability.OTHER


GENERATE = images.generation(_make)
EDIT = images.edit(_make)
