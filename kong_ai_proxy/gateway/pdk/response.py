"""kong.response: Kong's own answers, and response headers set before the upstream answered."""

from __future__ import annotations

import json
from http import HTTPStatus

from kong_ai_proxy.gateway import answers
from kong_ai_proxy.gateway.context import Exit, Headers, RequestContext, Response
from kong_ai_proxy.gateway.pdk import headers as lines
from kong_ai_proxy.gateway.pdk.base import (
    RESPONSE_KNOWN,
    RESPONSE_OPEN,
    Call,
    ExitedError,
    LuaError,
    log,
    lua_type,
    method,
    text,
)

_JSON = "application/json; charset=utf-8"
_NO_BODY = (204, 304)
_ERRORS = 400
# Without a body, Kong's error pages answer for these, nginx's own pages for the others.
_KONG_PAGES = frozenset({400, 404, 405, 408, 411, 412, 413, 414, 417, 494, 500, 502, 503, 504})
_NGINX_PAGES = frozenset({401, 402, 403, 406, 409, 410, 415, 416, 421, 429, 501, 505, 507})
_BODIES = ("body_filter",)


def _accept(ctx: RequestContext) -> str:
    return ", ".join(lines.find(ctx.client.headers, "accept")) or "*/*"


def error_exit(ctx: RequestContext, status: int = 500, message: str | None = None) -> None:
    """Kong's own error answer, as for a plugin that failed; in the format of a Content-Type set
    before, else in one that the client accepts.
    """
    wanted = next(iter(lines.find(ctx.response_headers, "content-type")), _accept(ctx))
    found = answers.error(status, message, request_id=ctx.request_id, accept=wanted)
    _answer(ctx, found.status, found.body, found.headers)


def _answer(ctx: RequestContext, status: int, body: bytes | None, headers: Headers) -> None:
    """Response headers set before stay, the answer's own replace them, Content-Length is added."""
    merged = list(ctx.response_headers)
    for name in dict.fromkeys(name for name, _ in headers):
        lines.replace(merged, name, [value for key, value in headers if key == name])
    given = any(name.lower() == "content-length" for name, _ in headers)
    if not given and (body is not None or status != _NO_BODY[0]):
        lines.replace(merged, "Content-Length", [str(len(body or b""))])
    ctx.response_headers = []
    ctx.exit = Exit(status, b"" if status in _NO_BODY else body or b"", merged)


def _page(ctx: RequestContext, status: int) -> tuple[bytes | None, Headers]:
    """What an exit without a body sends."""
    if status in _KONG_PAGES:
        found = answers.error(status, request_id=ctx.request_id, accept=_accept(ctx))
        return found.body, found.headers
    if status in _NGINX_PAGES:
        title = f"{status} {HTTPStatus(status).phrase}"
        page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\r\n"
        return page.encode(), [("Content-Type", "text/html; charset=UTF-8")]
    return None, []


def _dashes(name: str) -> str:
    """ngx.header takes `_` in a name for `-`."""
    return name.replace("_", "-")


def _is_transfer_encoding(call: Call, name: str) -> bool:
    if _dashes(name).lower() != "transfer-encoding":
        return False
    log(call, "warn", "manually setting Transfer-Encoding. Ignored.")
    return True


@method("response.exit", RESPONSE_OPEN)
def exit_(call: Call, status: object = None, body: object = None, headers: object = None) -> None:
    """Ends the request with this answer: raises ExitedError, or LuaError for bad arguments."""
    code = _code(status, 100)
    if body is not None and lua_type(body) not in ("string", "table"):
        raise LuaError("body must be a nil, string or table")
    if headers is not None and lua_type(headers) != "table":
        raise LuaError("headers must be a nil or table")
    found: Headers = []
    for name, value in lines.check_table({} if headers is None else headers).items():
        if not _is_transfer_encoding(call, name):
            found.extend((_dashes(name), line) for line in lines.values(value))
    content = _content(body)
    if content is None:
        content, own = _page(call.ctx, code)
        found.extend(own)
    if lua_type(body) == "table" and not any(n.lower() == "content-type" for n, _ in found):
        found.append(("Content-Type", _JSON))
    _answer(call.ctx, code, content, found)
    raise ExitedError


def _code(status: object, least: int) -> int:
    if lua_type(status) != "number":
        raise LuaError("code must be a number")
    assert isinstance(status, int | float)
    code = int(status)
    if not least <= code <= 599:
        raise LuaError(f"code must be a number between {least} and 599")
    return code


def _content(body: object) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8", "surrogateescape")
    encoded = json.dumps(_tables(body), separators=(",", ":"), ensure_ascii=False)
    return encoded.encode("utf-8", "surrogateescape")


def _tables(value: object) -> object:
    """Lua cannot tell an empty list from an empty table: its JSON encoder writes {}."""
    if isinstance(value, list):
        return [_tables(item) for item in value] or {}
    if isinstance(value, dict):
        return {key: _tables(item) for key, item in value.items()}
    return value


@method("response.error", RESPONSE_OPEN)
def error(
    call: Call, status: object = None, message: object = None, headers: object = None
) -> None:
    """Ends the request with an error in Kong's own format. Not reachable over ProtoBuf:1."""
    code = _code(status, _ERRORS)
    if lua_type(message) == "table":
        message = json.dumps(message, separators=(",", ":"))
    if message is not None and not isinstance(message, str | bytes):
        raise LuaError("message must be a nil, a string or a table")
    if headers is not None and lua_type(headers) != "table":
        raise LuaError("headers must be a nil or table")
    for name, value in lines.check_table({} if headers is None else headers).items():
        lines.replace(call.ctx.response_headers, _dashes(name), lines.values(value))
    if isinstance(message, str):
        message = message.encode("utf-8", "surrogateescape")
    shown = None if message is None else message.decode("utf-8", "replace")
    error_exit(call.ctx, code, shown)
    raise ExitedError


@method("response.set_status", RESPONSE_OPEN)
def set_status(call: Call, status: object = None) -> None:
    """Checked only: the upstream's status, or that of an exit, comes later and wins."""
    _code(status, 100)


@method("response.set_header", RESPONSE_OPEN)
def set_header(call: Call, name: object = None, value: object = None) -> None:
    checked = lines.check(name, value)
    if not _is_transfer_encoding(call, checked):
        lines.replace(call.ctx.response_headers, _dashes(checked), lines.values(value))


@method("response.add_header", RESPONSE_OPEN)
def add_header(call: Call, name: object = None, value: object = None) -> None:
    checked = lines.check(name, value)
    lines.append(call.ctx.response_headers, _dashes(checked), lines.values(value))


@method("response.clear_header", RESPONSE_OPEN)
def clear_header(call: Call, name: object = None) -> None:
    wanted = text(name, "header name must be a string")
    lines.replace(call.ctx.response_headers, _dashes(wanted), [])


@method("response.set_headers", RESPONSE_OPEN)
def set_headers(call: Call, headers: object = None) -> None:
    for name, value in lines.check_table(headers).items():
        if not _is_transfer_encoding(call, name):
            lines.replace(call.ctx.response_headers, _dashes(name), lines.values(value))


def _response(call: Call) -> Response:
    return call.ctx.response or Response(status=0, headers=[], source="error")


@method("response.get_status", RESPONSE_KNOWN, in_timer=True)
def get_status(call: Call) -> int:
    return _response(call).status


@method("response.get_headers", RESPONSE_KNOWN, in_timer=True)
def get_headers(call: Call, max_headers: object = None) -> dict[str, object]:
    return lines.table(_response(call).headers)


@method("response.get_header", RESPONSE_KNOWN, in_timer=True)
def get_header(call: Call, name: object = None) -> str | None:
    found = lines.find(_response(call).headers, text(name, "header name must be a string"))
    return found[0] if found else None


@method("response.get_source", RESPONSE_KNOWN, in_timer=True)
def get_source(call: Call) -> str:
    return _response(call).source


@method("response.get_raw_body", _BODIES)
@method("response.set_raw_body", _BODIES)
@method("service.response.get_status", RESPONSE_KNOWN[:4])
@method("service.response.get_header", RESPONSE_KNOWN[:4])
@method("service.response.get_headers", RESPONSE_KNOWN[:4])
@method("service.response.get_raw_body", RESPONSE_KNOWN[:4])
def not_in_these_phases(call: Call, *args: object) -> None:
    """The stand-in runs rewrite, access and log; here Kong refuses these in all of them."""
    raise LuaError("API disabled in the context of ngx.timer")
