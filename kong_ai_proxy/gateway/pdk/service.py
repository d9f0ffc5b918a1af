"""kong.service and kong.service.request: where the request goes and with what."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kong_ai_proxy.gateway.context import Headers
from kong_ai_proxy.gateway.pdk import headers as lines
from kong_ai_proxy.gateway.pdk import uri
from kong_ai_proxy.gateway.pdk.base import (
    REWRITE_ACCESS,
    REWRITE_ACCESS_BALANCER,
    Call,
    LuaError,
    integer,
    lua_type,
    method,
    text,
    to_string,
)
from kong_ai_proxy.gateway.pdk.multipart import build_multipart
from kong_ai_proxy.gateway.pdk.request import (
    FORM,
    JSON,
    MULTIPART,
    get_header,
    headers_of,
    query_of,
)

_MAX_PORT = 65535
_MAX_RETRIES = 32767
_MAX_TIMEOUT = 2147483646  # ms
_METHODS = frozenset(
    {"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "MKCOL", "COPY", "MOVE"}
    | {"PROPFIND", "PROPPATCH", "LOCK", "UNLOCK"}
)
_ACCESS = ("access",)


@method("service.set_upstream", _ACCESS)
def set_upstream(call: Call, host: object = None) -> bool | None:
    """None, as for a name Kong does not know: the stand-in has no Upstream entities."""
    text(host, "host must be a string")
    return None


@method("service.set_target", REWRITE_ACCESS_BALANCER)
def set_target(call: Call, host: object = None, port: object = None) -> None:
    """Also sets the Host header, to the host without the port."""
    name = text(host, "host must be a string")
    number = integer(port, "port must be an integer")
    if not 0 <= number <= _MAX_PORT:
        raise LuaError(f"port must be an integer between 0 and {_MAX_PORT}: given {number}")
    upstream = call.ctx.upstream
    upstream.host, upstream.port = name, number
    upstream.host_header = name
    upstream.target_set = True


@method("service.set_retries", _ACCESS)
def set_retries(call: Call, retries: object = None) -> None:
    number = integer(retries, "retries must be an integer")
    if not 0 <= number <= _MAX_RETRIES:
        raise LuaError(f"retries must be an integer between 0 and {_MAX_RETRIES}: given {number}")
    call.ctx.upstream.retries = number


@method("service.set_timeouts", _ACCESS)
def set_timeouts(
    call: Call, connect: object = None, write: object = None, read: object = None
) -> None:
    found: list[int] = []
    for name, value in (("connect", connect), ("write", write), ("read", read)):
        number = integer(value, f"{name}_timeout must be an integer")
        if not 1 <= number <= _MAX_TIMEOUT:
            bounds = f"between 1 and {_MAX_TIMEOUT}: given {number}"
            raise LuaError(f"{name}_timeout must be an integer {bounds}")
        found.append(number)
    call.ctx.upstream.timeouts = (found[0], found[1], found[2])


@method("service.set_tls_verify", REWRITE_ACCESS_BALANCER)
def set_tls_verify(call: Call, on: object = None) -> bool:
    if not isinstance(on, bool):
        raise LuaError("argument must be a boolean")
    call.ctx.upstream.tls_verify = on
    return True


@method("service.set_tls_verify_depth", REWRITE_ACCESS_BALANCER)
def set_tls_verify_depth(call: Call, depth: object = None) -> bool:
    call.ctx.upstream.tls_verify_depth = integer(depth, "argument must be a number")
    return True


@method("service.set_tls_verify_store", REWRITE_ACCESS_BALANCER)
def set_tls_verify_store(call: Call, store: object = None) -> None:
    raise LuaError("argument must be a resty.openssl.x509.store object")  # none comes over RPC


@method("service.set_tls_cert_key", REWRITE_ACCESS_BALANCER)
def set_tls_cert_key(call: Call, chain: object = None, key: object = None) -> None:
    raise LuaError("chain must be a parsed cdata object")  # none comes over RPC


@method("service.request.enable_buffering", REWRITE_ACCESS_BALANCER)
def enable_buffering(call: Call) -> None:
    call.ctx.upstream.buffered = True


@method("service.request.set_scheme", REWRITE_ACCESS_BALANCER)
def set_scheme(call: Call, scheme: object = None) -> None:
    wanted = text(scheme, "scheme must be a string")
    if wanted not in ("http", "https"):
        raise LuaError(f"invalid scheme: {wanted}")
    call.ctx.upstream.scheme = wanted


@method("service.request.set_path", REWRITE_ACCESS_BALANCER)
def set_path(call: Call, path: object = None) -> None:
    """Sets nginx's upstream_uri; the query is appended to it, even behind a `?` in `path`."""
    wanted = text(path, "path must be a string")
    if not wanted.startswith("/"):
        raise LuaError("path must start with /")
    call.ctx.upstream.path = uri.escape_path(wanted)


def _use_query(call: Call, query: str) -> None:
    call.ctx.request_query = query
    call.ctx.upstream.query = query


@method("service.request.set_raw_query", REWRITE_ACCESS)
def set_raw_query(call: Call, query: object = None) -> None:
    _use_query(call, uri.escape_query(text(query, "query must be a string")))


@method("service.request.set_query", REWRITE_ACCESS)
def set_query(call: Call, args: object = None) -> None:
    _use_query(call, uri.encode(args))


@method("service.request.clear_query_arg", REWRITE_ACCESS)
def clear_query_arg(call: Call, name: object = None) -> None:
    wanted = text(name, "query argument name must be a string")
    if query_of(call):
        _use_query(call, uri.remove(query_of(call), wanted))


@method("service.request.set_method", REWRITE_ACCESS)
def set_method(call: Call, name: object = None) -> None:
    wanted = text(name, "method must be a string")
    if wanted not in _METHODS:
        raise LuaError(f"invalid method: {wanted}")
    call.ctx.request_method = wanted
    call.ctx.upstream.method = wanted


def _both(call: Call) -> tuple[Headers, Headers]:
    """The request's headers as plugins see them and those sent on; nginx has one list of both."""
    ctx = call.ctx
    if ctx.request_headers is None:
        ctx.request_headers = list(ctx.client.headers)
    return ctx.request_headers, ctx.upstream.headers


def _set(call: Call, name: str, value: object) -> None:
    if name.lower() == "host":
        call.ctx.upstream.host_header = to_string(value)
    for headers in _both(call):
        lines.replace(headers, name, lines.values(value))


@method("service.request.set_header", REWRITE_ACCESS_BALANCER)
def set_header(call: Call, name: object = None, value: object = None) -> None:
    """Replaces a header. `:authority` is refused silently (`nil, err`): no route is gRPC."""
    checked = lines.check(name, value)
    if checked.lower() != ":authority":
        _set(call, checked, value)


@method("service.request.add_header", REWRITE_ACCESS)
def add_header(call: Call, name: object = None, value: object = None) -> None:
    """Adds one value; of a list, Kong adds the text that Lua has for a table."""
    checked = lines.check(name, value)
    if checked.lower() == "host":
        call.ctx.upstream.host_header = to_string(value)
    found = lines.find(headers_of(call), checked)
    found.append(to_string(value) or " ")
    for headers in _both(call):
        lines.replace(headers, checked, found)


@method("service.request.clear_header", REWRITE_ACCESS)
def clear_header(call: Call, name: object = None) -> None:
    wanted = text(name, "header must be a string")
    for headers in _both(call):
        lines.replace(headers, wanted, [])


@method("service.request.set_headers", REWRITE_ACCESS)
def set_headers(call: Call, headers: object = None) -> None:
    for name, value in lines.check_table(headers).items():
        _set(call, name, value)


@method("service.request.set_raw_body", REWRITE_ACCESS_BALANCER)
def set_raw_body(call: Call, body: object = None) -> None:
    """Replaces the body and sets Content-Length."""
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogateescape")
    if not isinstance(body, bytes):
        raise LuaError("body must be a string")
    call.ctx.upstream.body = body
    for headers in _both(call):
        lines.replace(headers, "Content-Length", [str(len(body))])


@method("service.request.set_body", REWRITE_ACCESS)
def set_body(call: Call, args: object = None, mime: object = None) -> bool | None:
    """Encodes a table as the body. None as for `nil, err`: no content type given or received."""
    if lua_type(args) != "table":
        raise LuaError("args must be a table")
    if mime is not None and lua_type(mime) != "string":
        raise LuaError("mime must be a string")
    given = mime if mime is not None else get_header(call, "content-type")
    if given is None:
        return None
    body, content_type = _encode(args, to_string(given))
    set_raw_body(call, body)
    _set(call, "Content-Type", content_type)
    return True


def _encode(args: object, mime: str) -> tuple[bytes, str]:
    plain = mime.partition(";")[0]
    if plain == FORM:
        return uri.encode(args).encode("utf-8", "surrogateescape"), mime
    if plain == JSON:
        return json.dumps(args, separators=(",", ":")).encode("utf-8", "surrogateescape"), mime
    if plain == MULTIPART:
        table: Mapping[object, object] = args if isinstance(args, dict) else {}
        return build_multipart(table, mime)
    raise LuaError(f"unsupported content type {mime}")
