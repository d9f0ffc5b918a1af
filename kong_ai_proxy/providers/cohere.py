"""Cohere: https://docs.cohere.com/reference/about."""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats import cohere, openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.providers.base import Call, Endpoint, Native, Provider

_CHAT = Endpoint("/v2/chat", cohere.CHAT)
_GENERATE = Endpoint("/v1/generate", cohere.GENERATE)

_NATIVE: Mapping[str, ProviderCodec | None] = {
    "v1/chat": None,
    "v1/embed": None,
    "v1/generate": cohere.GENERATE,
    "v1/rerank": cohere.RERANK,
    "v2/chat": cohere.CHAT,
    "v2/embed": cohere.EMBED,
    "v2/rerank": cohere.RERANK,
}
_CURRENT = {"chat": "v2", "embed": "v2", "generate": "v1", "rerank": "v2"}
"""The version of a path that names none."""


def _embed(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """`input_type`, without which the current models refuse, and the length of the vectors, where
    the request does not say them."""
    options = call.options
    changes: dict[str, object] = {}
    if body.get("input_type") is None:
        changes["input_type"] = options.cohere.embedding_input_type
    if body.get("output_dimension") is None and options.embeddings_dimensions is not None:
        changes["output_dimension"] = options.embeddings_dimensions
    return changes


_EMBED = Endpoint("/v2/embed", cohere.EMBED, change=_embed)
_ENDPOINTS = {openai.CHAT: _CHAT, openai.COMPLETIONS: _GENERATE, openai.EMBEDDINGS: _EMBED}


def _named(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The configured model, where the request names none: in the first version Cohere takes one of
    its own choice then (https://docs.cohere.com/v1/reference/chat, .../embed, .../rerank)."""
    return {"model": call.model} if call.model and not body.get("model") else {}


_CHANGES = {
    "v1/chat": _named,
    "v1/embed": _named,
    "v1/rerank": _named,
    "v2/embed": _embed,
    "v2/rerank": _named,
}


def _native(native: Native, call: Call) -> Endpoint | None:
    operation = native.operation.strip("/")
    if operation in _CURRENT:
        operation = f"{_CURRENT[operation]}/{operation}"
    if operation not in _NATIVE:
        return None
    return Endpoint(f"/{operation}", _NATIVE[operation], change=_CHANGES.get(operation))


COHERE = Provider(
    name="cohere",
    base_url="https://api.cohere.com:443",
    endpoint=lambda call: _ENDPOINTS[call.route_type],
    endpoints=frozenset(_ENDPOINTS),
    native=_native,
    natives=frozenset({"cohere"}),
    # A stream always tells it, in its last event.
    usage_on_request=False,
)
