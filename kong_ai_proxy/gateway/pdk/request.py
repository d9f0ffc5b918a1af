"""kong.request: the request as it is now. What plugins changed in it shows, as in nginx."""

from __future__ import annotations

import json

from kong_ai_proxy.gateway.context import Headers
from kong_ai_proxy.gateway.pdk import uri
from kong_ai_proxy.gateway.pdk.base import ANY, BEFORE_CONTENT, Call, LuaError, method, text
from kong_ai_proxy.gateway.pdk.headers import find, limit, table
from kong_ai_proxy.gateway.pdk.multipart import parse_multipart

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data"


def headers_of(call: Call) -> Headers:
    """The request's header lines, with what plugins changed."""
    changed = call.ctx.request_headers
    return call.ctx.client.headers if changed is None else changed


def query_of(call: Call) -> str:
    """The request's raw query, with what plugins changed."""
    changed = call.ctx.request_query
    return call.ctx.client.query if changed is None else changed


@method("request.get_scheme")
@method("request.get_forwarded_scheme")  # X-Forwarded-* count from trusted_ips only: there are none
def get_scheme(call: Call) -> str:
    return call.ctx.client.scheme


@method("request.get_host")
@method("request.get_forwarded_host")
def get_host(call: Call) -> str:
    return call.ctx.client.host


@method("request.get_port")
@method("request.get_forwarded_port")
def get_port(call: Call) -> int:
    return call.ctx.client.port


@method("request.get_forwarded_path")
@method("request.get_path")
def get_path(call: Call) -> str:
    return uri.normalize(call.ctx.client.path)


@method("request.get_raw_path")
def get_raw_path(call: Call) -> str:
    return call.ctx.client.path


@method("request.get_forwarded_prefix")
def get_forwarded_prefix(call: Call) -> str | None:
    return call.ctx.forwarded_prefix


@method("request.get_http_version")
def get_http_version(call: Call) -> float:
    return call.ctx.client.http_version


@method("request.get_method")
def get_method(call: Call) -> str:
    return call.ctx.request_method or call.ctx.client.method


@method("request.get_path_with_query")
def get_path_with_query(call: Call) -> str:
    client = call.ctx.client
    if client.query or client.bare_question_mark:
        return f"{client.path}?{client.query}"
    return client.path


@method("request.get_raw_query")
def get_raw_query(call: Call) -> str:
    return query_of(call)


@method("request.get_query")
def get_query(call: Call, max_args: object = None) -> dict[str, object]:
    return uri.parse(query_of(call), limit(max_args, "max_args"))


@method("request.get_query_arg")
def get_query_arg(call: Call, name: object = None) -> object:
    wanted = text(name, "query argument name must be a string")
    value = get_query(call).get(wanted)
    return value[0] if isinstance(value, list) else value


@method("request.get_headers", in_timer=True)
def get_headers(call: Call, max_headers: object = None) -> dict[str, object]:
    if call.phase == "log":  # saved before the timer, with nginx's default limit
        max_headers = None
    return table(headers_of(call), limit(max_headers, "max_headers"))


@method("request.get_header", in_timer=True)
def get_header(call: Call, name: object = None) -> str | None:
    """The header's first value. Kong reads nginx's variable, where `-` and `_` are the same; the
    table, where they are not, only when that holds ", ", as it does for several values.
    """
    wanted = text(name, "header name must be a string")
    headers = headers_of(call)
    joined = ", ".join(find(headers, wanted))
    if call.phase != "log" and ", " not in joined:
        return joined if joined or find(headers, wanted) else None
    lines = table(headers)
    value = lines.get(wanted, lines.get(wanted.lower().replace("_", "-")))
    return str(value[0]) if isinstance(value, list) else value if isinstance(value, str) else None


@method("request.get_raw_body", BEFORE_CONTENT)
def get_raw_body(call: Call, max_file_size: object = None) -> bytes | None:
    """The body, or None where Kong returns `nil, err`: it is in a file, and no `max_file_size`
    was given (0: any size) or it is longer.
    """
    if call.ctx.upstream.body is not None:
        return call.ctx.upstream.body
    body = call.ctx.client.body
    if body.file is None:
        return body.content
    if max_file_size is None:
        return None
    if isinstance(max_file_size, bool) or not isinstance(max_file_size, int | float):
        raise LuaError("attempt to compare number with a value of another type")
    if max_file_size < 0 or 0 < max_file_size < body.file.stat().st_size:
        return None
    return body.file.read_bytes()


@method("request.get_body", BEFORE_CONTENT)
def get_body(
    call: Call, mimetype: object = None, max_args: object = None, max_file_size: object = None
) -> object:
    """The decoded body, or None where Kong returns `nil, err`. Not reachable over ProtoBuf:1."""
    given = mimetype if mimetype is not None else get_header(call, "content-type")
    if given is None:
        return None
    content_type = text(given, "attempt to use a content type that is not a string")
    plain = content_type.lower().partition(";")[0]
    if plain.startswith(FORM):
        raw = get_raw_body(call)
        count = limit(max_args, "max_args")
        return None if raw is None else uri.parse(raw.decode("utf-8", "surrogateescape"), count)
    if not plain.startswith((JSON, MULTIPART)):
        return None
    raw = get_raw_body(call, max_file_size)
    if raw is None:
        return None
    if plain.startswith(MULTIPART):
        return parse_multipart(raw, content_type)
    return _json_table(raw)


def _json_table(raw: bytes) -> object:
    try:
        value = json.loads(raw)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is an error
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


@method("request.get_start_time")
def get_start_time(call: Call) -> int:
    return int(call.ctx.started_at * 1000)


@method("request.get_uri_captures", ANY, in_timer=True)
def get_uri_captures(call: Call) -> dict[str, object]:
    """`unnamed` has Lua's keys: 0 is the whole match."""
    ctx = call.ctx
    unnamed: dict[int, str] = {}
    if ctx.captures_match or ctx.captures_unnamed or ctx.captures_named:
        unnamed = dict(enumerate((ctx.captures_match, *ctx.captures_unnamed)))
    return {"unnamed": unnamed, "named": dict(ctx.captures_named)}
