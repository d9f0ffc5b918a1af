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
from kong_ai_proxy.exchange.subpath import Subpath
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import OPERATIONS
from kong_ai_proxy.providers.base import Endpoint, Provider

_NOWHERE = Address("", "", 0, "")

DEFAULT_PORTS = {"http": 80, "https": 443}


def address(
    provider: Provider,
    model: Model,
    route_type: str,
    request: ClientRequest,
    sub: Subpath,
    place: Endpoint,
) -> Address:
    """Where this request goes. `model` has its templates expanded.

    `upstream_url` replaces everything, its path and query included; without any path of its own
    it gets the provider's. What the client wants below a collection follows. Raises Refused.
    """
    url = model.options.upstream_url
    upstream_path = None if provider.has_upstream_path else model.options.upstream_path
    base = "" if url else place.base_url or _base(provider, model)
    if not base and not url:
        raise Refused(
            SERVER_ERROR, "must set 'model.options.upstream_url' for self-hosted providers/models"
        )
    if not place.path:  # preserve: the client's own path, unless the operator gives one
        path = "" if upstream_path else "/" + no_dot_segments(request.path).lstrip("/")
        return _configured.__wrapped__(base, path, url, upstream_path)
    found = _configured(base, place.path, url, upstream_path)
    if not sub.collection:
        return found
    return found._replace(path=_below(found.path, route_type, sub))


def _base(provider: Provider, model: Model) -> str:
    try:
        return provider.base(model.options)
    except FormatError as error:  # a templated value would change the host
        raise Refused(BAD_REQUEST, str(error)) from None


@lru_cache(maxsize=1024)
def _configured(base: str, path: str, url: str | None, upstream_path: str | None) -> Address:
    place = split_url(base)._replace(path=path) if base else _NOWHERE._replace(path=path)
    if upstream_path:
        own, _, query = upstream_path.partition("?")
        place = place._replace(path="/" + no_dot_segments(own).lstrip("/"), query=query)
    if url:
        given = split_url(url)
        return given if given.path else given._replace(path=place.path)
    return place


def _below(path: str, route_type: str, sub: Subpath) -> str:
    """`path` is the first collection's; threads have theirs beside that of assistants."""
    first = OPERATIONS[route_type].collections[0]
    parent, _, last = path.rstrip("/").rpartition("/")
    base = f"{parent}/{sub.collection}" if last == first else path.rstrip("/")
    return base + sub.rest


@lru_cache(maxsize=1024)
def split_url(url: str) -> Address:
    """The parts of an absolute URL; the port defaults by scheme, `path` may be "".

    A WebSocket is an upgraded HTTP request, so `ws` and `wss` become `http` and `https`, which is
    what Kong knows. Raises Refused (500) without showing the URL: it may hold a key.
    """
    wanted = Refused(SERVER_ERROR, "upstream_url: expected http(s)://host[:port][/path][?query]")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wanted from None
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in DEFAULT_PORTS or not parts.hostname:
        raise wanted
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(scheme, host, port or DEFAULT_PORTS[scheme], parts.path, parts.query)


def no_dot_segments(path: str) -> str:
    """`path` itself. Raises Refused (400) when a segment is "." or "..", encoded or not."""
    segments = re.split(r"[/\\]", unquote(path, errors="surrogateescape"))
    if any(segment.partition(";")[0] in (".", "..") for segment in segments):
        raise Refused(BAD_REQUEST, "the path must not have '.' or '..' segments")
    return path
