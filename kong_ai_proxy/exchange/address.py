"""The provider's address: base URL and path of the route type, or what the operator configured.

Whatever comes from a client (a captured model name, a header in a template) may fill its place in
a URL and nothing more: it cannot name another host nor climb out of the path.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from kong_ai_proxy.config import Model
from kong_ai_proxy.exchange.errors import BAD_REQUEST, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import Address, ClientRequest
from kong_ai_proxy.formats.openai import PRESERVE
from kong_ai_proxy.providers.base import Provider

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def address(provider: Provider, model: Model, route_type: str, request: ClientRequest) -> Address:
    """Where this request goes. `model` has its templates expanded.

    `upstream_url` replaces everything, its path and query included; without any path of its own
    it gets the provider's. Raises Refused.
    """
    path = _own_path(provider, model, route_type, request)
    if model.options.upstream_url:
        given = split_url(model.options.upstream_url)
        return given if given.path else given._replace(path=path)
    return split_url(provider.base_url)._replace(path=path)


def _own_path(provider: Provider, model: Model, route_type: str, request: ClientRequest) -> str:
    if model.options.upstream_path:
        return "/" + model.options.upstream_path.lstrip("/")
    if route_type == PRESERVE:
        return "/" + no_dot_segments(request.path).lstrip("/")
    return provider.paths[route_type]


@lru_cache(maxsize=1024)
def split_url(url: str) -> Address:
    """The parts of an absolute URL; the port defaults by scheme, `path` may be "".

    Raises Refused (500): the URL is the operator's.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(SERVER_ERROR, f"upstream_url {url!r}: {error}") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise Refused(SERVER_ERROR, f"upstream_url {url!r}: expected http(s)://host[:port][/path]")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], parts.path, parts.query)


def no_dot_segments(path: str) -> str:
    """`path` itself. Raises Refused (400) when a segment is "." or "..", encoded or not."""
    if {".", ".."}.intersection(re.split(r"[/\\]", unquote(path, errors="surrogateescape"))):
        raise Refused(BAD_REQUEST, "the path must not have '.' or '..' segments")
    return path
