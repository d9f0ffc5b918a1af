"""Which of a provider's endpoints a call goes to."""

from __future__ import annotations

from kong_ai_proxy.exchange.asking import NATIVE_ONLY, OPENAI_CODECS, Asked
from kong_ai_proxy.exchange.errors import BAD_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.subpath import Subpath
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import CHAT, PRESERVE, REALTIME, RESPONSES
from kong_ai_proxy.providers.base import Call, Endpoint, Provider


def asked_as(provider: Provider, route_type: str) -> str:
    """The route type in which `provider` is asked for `route_type`: where there are no Responses,
    a response is what a conversation answers."""
    if route_type == RESPONSES and RESPONSES not in provider.route_types:
        return CHAT
    return route_type


def check_keeps_nothing(provider: Provider, request: ClientRequest, below: Subpath) -> None:
    """Raises Refused for all but the making of a response, where it is made of a conversation's
    answer: nobody keeps it."""
    if below.rest:
        raise Refused(
            NOT_FOUND,
            f"provider {provider.name} keeps no responses: expected POST of a new one, whose whole "
            "conversation is in its input",
        )
    if request.method != "POST":
        message = f"{request.method}: expected POST, provider {provider.name} keeps no responses"
        raise Refused(METHOD_NOT_ALLOWED, message, {"allow": "POST"})


def endpoint(provider: Provider, call: Call, asked: Asked) -> Endpoint:
    """Where a call goes and what is spoken there. Raises Refused for what the provider has not."""
    try:
        found = _endpoint(provider, call, asked)
    except FormatError as error:
        raise Refused(BAD_REQUEST, str(error)) from None
    if found is None:
        native = asked.native
        what = (native and (native.operation or native.path)) or asked.route_type
        raise Refused(NOT_FOUND, f"provider {provider.name} has no '{what}'")
    return found


def _endpoint(provider: Provider, call: Call, asked: Asked) -> Endpoint | None:
    if asked.native is not None and provider.native is not None:
        own = provider.native(asked.native, call) if asked.client in provider.natives else None
        if own is not None:
            return own
    if asked.route_type == NATIVE_ONLY or (asked.native and asked.route_type == REALTIME):
        return None
    if asked.route_type == PRESERVE:
        return Endpoint("")
    if call.route_type in provider.flows:
        return Endpoint("", flow=provider.flows[call.route_type])
    if provider.endpoint is not None and call.route_type in provider.endpoints:
        return provider.endpoint(call)
    path = provider.paths.get(call.route_type)
    if path is None:
        return None
    codec = provider.codecs.get(call.route_type) or OPENAI_CODECS.get(call.route_type)
    return Endpoint(path, codec, change=provider.changes.get(call.route_type))
