"""Images of Google's models: Gemini's make them by generateContent, Imagen by predict.

Which of the two a model is, its name says: imagen-* and imagegeneration@* are Imagen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, NamedTuple

from kong_ai_proxy.formats import gemini
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.gemini import imagen
from kong_ai_proxy.formats.gemini import images as gemini_images
from kong_ai_proxy.formats.images import PNG, ImagesAnswer, ImagesRequest, Picture, seeded
from kong_ai_proxy.providers import images
from kong_ai_proxy.providers.flow import MAX_MEDIA, Send, Step, Wanted, parsed, sent
from kong_ai_proxy.providers.gemini import paths

_Made = Generator[Step, Any, images.Made]
_Render = Callable[[ImagesRequest, int], Rendered]
_Read = Callable[[object], ImagesAnswer | ProviderError]


class _Calls(NamedTuple):
    """How a model is called."""

    render: _Render
    """The request for that many images."""
    read: _Read
    config: str
    """The member of the request that has the seed."""
    most: int
    """Images by one call."""


def _generate_public(request: ImagesRequest, wanted: Wanted) -> _Made:
    parent = paths.public_model(wanted.model)
    if imagen.is_imagen(wanted.model):
        return _predicted(parent, request, imagen.request)
    return _content(parent, request, "gemini")


def _edit_public(request: ImagesRequest, wanted: Wanted) -> _Made:
    if imagen.is_imagen(wanted.model):
        raise FormatError(
            "model: Imagen edits images on Vertex AI only; of the Gemini API take a Gemini model "
            "that makes images, such as gemini-2.5-flash-image"
        )
    return _content(paths.public_model(wanted.model), request, "gemini")


def _generate_vertex(request: ImagesRequest, wanted: Wanted) -> _Made:
    if imagen.is_imagen(wanted.model):
        return _predicted(_vertex(wanted), request, imagen.request)
    return _content(_vertex(wanted), request, "vertex")


def _edit_vertex(request: ImagesRequest, wanted: Wanted) -> _Made:
    if imagen.is_imagen(wanted.model):
        return _edited(_vertex(wanted), request)
    return _content(_vertex(wanted), request, "vertex")


def _vertex(wanted: Wanted) -> str:
    """The model's path, or that of the endpoint where the operator deployed it."""
    options = wanted.options
    endpoint = options.gemini.endpoint_id or paths.deployed(wanted.model)
    if endpoint:
        return f"{paths.located(options)}/endpoints/{paths.segment(endpoint, 'endpoint_id')}"
    return paths.vertex_model(options, wanted.model)


def _content(parent: str, request: ImagesRequest, api: gemini_images.Api) -> _Made:
    rendered = gemini_images.request(request, api)
    path = f"{parent}:generateContent"
    make = _Calls(lambda *_: rendered, gemini_images.answer, "generationConfig", 1)
    return _gathered(path, request, make)


def _predicted(parent: str, request: ImagesRequest, render: _Render) -> _Made:
    make = _Calls(render, imagen.answer, "parameters", imagen.MOST)
    return _gathered(f"{parent}:predict", request, make)


def _edited(parent: str, request: ImagesRequest) -> _Made:
    if request.mask is not None:
        mask = yield from images.black_and_white(request.mask, white=True)
        request = replace(request, mask=Picture(mask, PNG))
    return (yield from _predicted(parent, request, imagen.edit_request))


def _gathered(path: str, request: ImagesRequest, calls: _Calls) -> _Made:
    """As many images as were asked for; fewer where the provider refuses to make some of them,
    but not all."""
    parts = range(0, request.n, calls.most)
    orders = [calls.render(request, min(calls.most, request.n - done)) for done in parts]
    answer = yield from images.gathered(
        _asked(path, seeded(order.body, calls.config, done), calls.read)
        for done, order in zip(parts, orders, strict=True)
    )
    return images.Made(answer, orders[0].dropped)


def _asked(path: str, body: dict[str, object], read: _Read) -> Generator[Step, Any, ImagesAnswer]:
    send = Send("POST", path, body=images.dumped(body), most=MAX_MEDIA)
    reply = yield from sent(send, gemini.GENERATE.parse_error)
    return images.unless_told(read(parsed(reply)))


GENERATE = images.generation(_generate_public)
EDIT = images.edit(_edit_public)
"""Of the Gemini API."""
VERTEX_GENERATE = images.generation(_generate_vertex)
VERTEX_EDIT = images.edit(_edit_vertex)
"""Of Vertex AI."""
