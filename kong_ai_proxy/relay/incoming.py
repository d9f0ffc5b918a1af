"""A request as Kong hands it to the relay, and what of its head goes on to the provider."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from kong_ai_proxy.exchange.errors import BAD_REQUEST, HEADERS_TOO_LARGE, Refused
from kong_ai_proxy.exchange.messages import (
    BodyFilter,
    ClientRequest,
    Consumer,
    UpstreamRequest,
)
from kong_ai_proxy.exchange.privacy import is_hop_by_hop
from kong_ai_proxy.relay.ticket import Claims

MAX_HEADERS = 1000
"""As many as the access phase takes, and some that Kong adds, are still below this."""

# Made anew for the provider, or Kong's own: `via` names it.
_NOT_PASSED = frozenset({"content-length", "expect", "host", "via"})


def client_request(request: web.BaseRequest, claims: Claims) -> ClientRequest:
    """The request as the core wants it; its consumer and captures are the ticket's. Raises
    Refused."""
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = (*headers[lower], value) if lower in headers else (value,)
    if len(request.headers) > MAX_HEADERS:
        raise Refused(HEADERS_TOO_LARGE, f"expected at most {MAX_HEADERS} headers")
    path, _, query = request.raw_path.partition("?")
    return ClientRequest(
        method=request.method,
        path=path,
        query=query,
        headers=headers,
        captures=claims.captures,
        route_path=claims.route_path,
        origin=claims.origin,
        consumer=Consumer(claims.consumer_id, claims.consumer_name, claims.groups),
        address=claims.client_address,
    )


def outgoing_headers(client: ClientRequest, upstream: UpstreamRequest) -> CIMultiDict[str]:
    """The headers for the provider: the client's with the changes. Raises Refused (400) for a
    value that is no UTF-8, because the HTTP client would send it without those bytes."""
    headers: CIMultiDict[str] = CIMultiDict()
    replaced, dropped = upstream.set_headers, upstream.drop_headers
    for name, values in client.headers.items():
        if name in dropped or name in replaced or name in _NOT_PASSED or is_hop_by_hop(name):
            continue
        for value in values:
            headers.add(name, _utf8(name, value))
    for name, value in replaced.items():
        headers[name] = _utf8(name, value)
    length = client.header("content-length")
    if length and _keeps_length(upstream.body):
        headers["content-length"] = length
    return headers


def _utf8(name: str, value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(BAD_REQUEST, f"header {name}: expected UTF-8") from None
    return value


def _keeps_length(body: bytes | BodyFilter | None) -> bool:
    """Whether the client's body goes up as long as it came. Some servers take no other."""
    return body is None or (not isinstance(body, bytes) and not body.may_change)
