"""The stand-in provider's list of models."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from kong_ai_proxy.gateway.provider.http import ApiError, Json, Route, json_response

# Names a client may expect. Any other name is answered too; the list is only for looking.
_MODELS: Final = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "text-embedding-ada-002",
    "gpt-4o-mini-tts",
    "gpt-4o-transcribe",
    "whisper-1",
    "gpt-image-1",
    "gpt-image-2",
    "sora-2",
    "gpt-realtime",
)
_CREATED: Final = 1735689600


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "kong-ai-proxy"}


async def models(_: web.Request) -> web.StreamResponse:
    """GET /v1/models"""
    return json_response({"object": "list", "data": [_model(name) for name in _MODELS]})


async def model(request: web.Request) -> web.StreamResponse:
    """GET /v1/models/{name}"""
    name = request.match_info["name"]
    if name not in _MODELS:
        message = f"The model '{name}' does not exist"
        raise ApiError(404, message, param="model", code="model_not_found")
    return json_response(_model(name))


ROUTES: Final[tuple[Route, ...]] = (
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{name}", model),
)
