"""Which models a client may name."""

from __future__ import annotations

from kong_ai_proxy.config import Model
from kong_ai_proxy.exchange import privacy
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.errors import BAD_REQUEST, Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Endpoint
from kong_ai_proxy.providers.named_models import bare

_WITHOUT_MODEL = frozenset({"huggingface/generate", "llama2/raw"})
"""Formats of servers that have one model, which no request names."""


def check_requested(model: Model, route_type: str, asked: Asked, requested: str | None) -> None:
    """Raises Refused for a name that is neither the target's nor its alias."""
    own = {model.name}
    if route_type != openai.PRESERVE:  # could not put the name for the alias
        own.add(model.model_alias)
    if requested is not None and asked.client != "openai":  # a resource, as Google has it
        requested, own = bare(requested), {bare(each) for each in own if each}
    if model.name and requested is not None and requested not in own:
        raise Refused(BAD_REQUEST, f"cannot use own model - must be: {model.name}")


def check_present(model: Model, route_type: str, endpoint: Endpoint, requested: str | None) -> None:
    """Raises Refused where neither side names one."""
    if (
        not model.name
        and requested is None
        and route_type in openai.NEED_MODEL
        and getattr(endpoint.codec, "name", "") not in _WITHOUT_MODEL
    ):
        raise Refused(
            BAD_REQUEST, "model parameter not found in request, nor in gateway configuration"
        )


def check_query(request: ClientRequest) -> None:
    """Raises Refused for a WebSocket that names several."""
    if len(privacy.values(request.query, "model")) > 1:
        raise Refused(BAD_REQUEST, "expected 'model' once in the query")
