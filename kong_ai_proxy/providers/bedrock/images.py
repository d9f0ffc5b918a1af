"""Images of Bedrock: one call of InvokeModel, or several in a row where the model makes fewer
images at once than the client wants.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kong_ai_proxy.formats.bedrock import CONVERSE, stability
from kong_ai_proxy.formats.bedrock.images import AMAZON, ImageModel, size_told
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.images import Image, ImagesAnswer, ImagesRequest
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
    model = _model(request.model)
    path = model_path(request.model, "invoke")
    mask = None
    if request.mask is not None:
        white = model.white_is_edited(request)
        mask = yield from images.black_and_white(request.mask, white=white)
    order = model.render(request, mask)
    made: tuple[Image, ...] = ()
    for body in order.bodies:
        send = Send("POST", path, body=images.dumped(body), most=MAX_MEDIA)
        reply = yield from sent(send, CONVERSE.parse_error)
        found = model.parse(parsed(reply))
        if isinstance(found, ProviderError):
            raise ProviderFailed(found)
        if not found:
            raise unusable("it has no image")
        made += found
        images.check_held(made)
    told = {"size": size_told(made[0]), "quality": request.quality}
    return images.Made(ImagesAnswer(images=made, settings=told), order.dropped)


def _model(name: str) -> ImageModel:
    found = next((model for pattern, model in AMAZON if pattern.search(name)), None)
    found = found or stability.find(name)
    if found is None:
        raise FormatError(
            "model: expected the id of a model of Bedrock's that makes images "
            "(amazon.titan-image-generator-..., amazon.nova-canvas-..., stability....), or of an "
            "inference profile or an ARN that has it, "
            + (f"got {name[:100]!r}" if name else "it is missing")
        )
    return found


GENERATE = images.generation(_make)
EDIT = images.edit(_make)
