"""What Kong sends on: the head of the upstream's request, the headers of the client's answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kong_ai_proxy.gateway import http1
from kong_ai_proxy.gateway.answers import SERVER
from kong_ai_proxy.gateway.context import Client, Headers, RequestContext
from kong_ai_proxy.gateway.http1 import RawHeaders
from kong_ai_proxy.gateway.paths import text, wire

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)
_SET_BY_KONG = frozenset(
    {
        *_HOP_BY_HOP,
        *("content-length", "expect", "host", "via", "x-kong-request-id", "x-real-ip"),
        *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"),
        *("x-forwarded-path", "x-forwarded-prefix"),
    }
)
_RESPONSE_HIDDEN = frozenset(
    {
        *(b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"content-type"),
        *(b"via", b"x-pad", b"x-accel-expires", b"x-accel-redirect", b"x-accel-limit-rate"),
        *(b"x-accel-buffering", b"x-accel-charset", b"x-kong-request-id"),
        *(b"x-kong-upstream-latency", b"x-kong-proxy-latency"),
    }
)
_NOT_IN_A_TARGET = re.compile(rb"[\x00-\x20\x7f]")
_CHARSET_TYPES = frozenset(
    {
        *(b"text/html", b"text/xml", b"text/plain", b"text/vnd.wap.wml"),
        *(b"application/javascript", b"application/rss+xml"),
    }
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def get(headers: Headers, name: str) -> str | None:
    """A header's first value, as Kong takes it; None if absent. `name` in small letters."""
    return next((value for key, value in headers if key.lower() == name), None)


def forwardable(headers: Headers) -> Headers:
    """The client's headers without the hop-by-hop ones and Host: what plugins may change."""
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in _HOP_BY_HOP and name.lower() != "host"
    ]


def wants_websocket(headers: Headers) -> bool:
    """Whether the client asks for an upgrade, the only one that Kong lets through."""
    return (get(headers, "upgrade") or "").lower() == "websocket"


def request_head(ctx: RequestContext, framing: http1.Framing | None) -> bytes:
    """The request as sent to the upstream, up to the body; `framing` None: there is no body."""
    upstream = ctx.upstream
    target = wire(upstream.path)
    if upstream.query or ctx.client.bare_question_mark:
        target += b"?" + wire(upstream.query)
    target = _NOT_IN_A_TARGET.sub(lambda match: b"%%%02X" % match[0][0], target)
    line = b"%b %b HTTP/1.1\r\n" % (upstream.method.encode(), target)
    dropped = _SET_BY_KONG | _named_in_connection(ctx.client.headers)
    headers = [(wire(name), wire(value)) for name, value in _own_headers(ctx)]
    headers += _framing_headers(framing)
    headers += [
        (wire(name), wire(value)) for name, value in upstream.headers if name.lower() not in dropped
    ]
    return line + http1.render_headers(headers)


def _own_headers(ctx: RequestContext) -> Headers:
    client = ctx.client
    upgrade = wants_websocket(client.headers)
    te = (get(client.headers, "te") or "").lower().split(",")
    optional = {
        "TE": "trailers" if "trailers" in {word.strip() for word in te} else "",
        "Via": _append(get(client.headers, "via"), f"{client.http_version:g} {SERVER}"),
        "Host": host_header(ctx),
        "Upgrade": "websocket" if upgrade else "",
        "Connection": "keep-alive, Upgrade" if upgrade else "keep-alive",
        "X-Forwarded-For": _append(get(client.headers, "x-forwarded-for"), client.ip),
        "X-Forwarded-Proto": client.scheme,
        "X-Forwarded-Host": client.host,
        "X-Forwarded-Port": str(client.port),
        "X-Forwarded-Path": client.path,
        "X-Forwarded-Prefix": ctx.forwarded_prefix or "",
        "X-Real-IP": client.ip,
        "X-Kong-Request-Id": ctx.request_id,
    }
    return [(name, value) for name, value in optional.items() if value]


def host_header(ctx: RequestContext) -> str:
    """What was set explicitly; else the target's name as set_target leaves it, without a port;
    else the Service's host, with its port unless that is the scheme's own."""
    upstream = ctx.upstream
    if upstream.host_header is not None:
        return upstream.host_header
    if upstream.target_set or upstream.port == _DEFAULT_PORTS.get(upstream.scheme):
        return upstream.host
    return f"{upstream.host}:{upstream.port}"


def _append(given: str | None, own: str) -> str:
    return f"{given}, {own}" if given else own


def _named_in_connection(headers: Headers) -> frozenset[str]:
    named = (get(headers, "connection") or "").lower().split(",")
    return frozenset(name.strip() for name in named)


def _framing_headers(framing: http1.Framing | None) -> RawHeaders:
    if framing is None:
        return []
    if framing.chunked:
        return [(b"Transfer-Encoding", b"chunked")]
    return [(b"Content-Length", b"%d" % (framing.length or 0))]


def response_headers(
    ctx: RequestContext, head: http1.ResponseHead, waited_ms: int, proxy_ms: int
) -> tuple[RawHeaders, RawHeaders]:
    """The headers for the client before and behind the connection's own (length, Connection)."""
    given = http1.values(head.headers, b"content-type")[:1]
    first = [(b"Content-Type", _with_charset(value)) for value in given]
    hidden = _RESPONSE_HIDDEN | (
        http1.tokens(head.headers, b"connection") - {b"close", b"upgrade", b"keep-alive"}
    )
    if not _upgrade_agrees(ctx.client, head):
        hidden |= {b"upgrade"}
    if get(ctx.client.headers, "te") is None:
        hidden |= {b"trailer"}
    rest = [*set_in_access(ctx)]
    rest += [item for item in head.headers if item[0].lower() not in hidden]
    if not http1.values(rest, b"server"):
        rest.append((b"Server", SERVER.encode()))
    return first, rest + _proxied(ctx, waited_ms, proxy_ms, http1.values(head.headers, b"via"))


def _with_charset(content_type: bytes) -> bytes:
    """Kong's nginx has `charset UTF-8`, which says so for these types where nothing is said."""
    return content_type + b"; charset=UTF-8" if content_type in _CHARSET_TYPES else content_type


def set_in_access(ctx: RequestContext, besides: Iterable[str] = ()) -> RawHeaders:
    """Headers that plugins set for the response; they stand beside the upstream's own."""
    without = {"content-type", "content-length", *(name.lower() for name in besides)}
    return [
        (wire(name), wire(value))
        for name, value in ctx.response_headers
        if name.lower() not in without
    ]


def _upgrade_agrees(client: Client, head: http1.ResponseHead) -> bool:
    offered = http1.values(head.headers, b"upgrade")
    return [value.lower() for value in offered] == [b"websocket"] and wants_websocket(
        client.headers
    )


def _proxied(ctx: RequestContext, waited_ms: int, proxy_ms: int, via: list[bytes]) -> RawHeaders:
    given = text(b", ".join(via)) or None
    return [
        (b"X-Kong-Upstream-Latency", b"%d" % waited_ms),
        (b"X-Kong-Proxy-Latency", b"%d" % proxy_ms),
        (b"Via", wire(_append(given, f"1.1 {SERVER}"))),
        (b"X-Kong-Request-Id", ctx.request_id.encode()),
    ]


def failed_headers(ctx: RequestContext, waited_ms: int, proxy_ms: int) -> RawHeaders:
    """What an error answer carries once proxying has begun."""
    return [*_proxied(ctx, waited_ms, proxy_ms, []), (b"Server", SERVER.encode())]
