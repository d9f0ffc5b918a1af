"""Header tables: what Kong's PDK accepts in them, and how nginx changes a list of header lines."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.gateway.context import Headers
from kong_ai_proxy.gateway.pdk.base import LuaError, integer, lua_type, to_string

MAX_COUNT = 1000  # get_headers and get_query
DEFAULT_COUNT = 100

# ngx_lua percent-encodes what could end a header line early (ngx_http_lua_util.c).
_UNSAFE_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_UNSAFE_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def escape(pattern: re.Pattern[bytes], value: str) -> str:
    """Percent-encode the bytes of `value` that match `pattern`."""
    raw = value.encode("utf-8", "surrogateescape")
    if not pattern.search(raw):
        return value
    return pattern.sub(_percent, raw).decode("utf-8", "surrogateescape")


def _safe(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    return escape(_UNSAFE_VALUE, value)


def check_value(name: object, value: object, scalar: str) -> None:
    """LuaError unless a header may have this value; `scalar` names what it may be in the text."""
    kind = lua_type(value)
    if kind == "table":
        items = value if isinstance(value, list) else []
        for item in items:
            if item is None:  # Lua's ipairs ends there
                return
            if lua_type(item) != "string":
                shown = _quoted(name)
                raise LuaError(
                    f"invalid header value in array {shown}: got {lua_type(item)}, expected string"
                )
    elif kind not in ("string", "number", "boolean"):
        raise LuaError(f"invalid header value for {_quoted(name)}: got {kind}, expected {scalar}")


def check(name: object, value: object) -> str:
    """The name of one header to set; LuaError where Kong's validate_header raises one."""
    if not isinstance(name, str):
        raise LuaError(
            f"invalid header name {_quoted(name)}: got {lua_type(name)}, expected string"
        )
    check_value(name, value, "array of string, string, number or boolean")
    return name


def check_table(headers: object) -> Mapping[str, object]:
    """A table of headers to set; LuaError where Kong's validate_headers raises one."""
    if lua_type(headers) != "table":
        raise LuaError("headers must be a table")
    if isinstance(headers, list):
        if headers:
            raise LuaError('invalid header name "1": got number, expected string')
        return {}
    assert isinstance(headers, dict)
    for name, value in headers.items():
        if not isinstance(name, str):
            kind = lua_type(name)
            raise LuaError(f"invalid header name {_quoted(name)}: got {kind}, expected string")
        check_value(name, value, "string, number, boolean or array of strings")
    return headers


def _quoted(value: object) -> str:
    return '"' + to_string(value) + '"'


def values(value: object) -> list[str]:
    """The lines a checked value makes: Kong sends a space for "", nginx drops empty values."""
    if isinstance(value, list):
        found = value[: value.index(None)] if None in value else value
        return [to_string(item) or " " for item in found]
    if isinstance(value, dict):
        return []
    return [to_string(value) or " "]


def replace(headers: Headers, name: str, lines: list[str]) -> None:
    """Set `name` in place: nginx keeps the spelling and the place of a header that is there."""
    name = escape(_UNSAFE_NAME, name)
    lines = [_safe(line) for line in lines]
    wanted, size = name.lower(), len(name)
    places = [i for i, (key, _) in enumerate(headers) if len(key) == size and key.lower() == wanted]
    for place in reversed(places[1:] if lines else places):
        del headers[place]
    if not lines:
        return
    if places:
        headers[places[0]] = (headers[places[0]][0], lines[0])
        lines = lines[1:]
    headers.extend((name, line) for line in lines)


def append(headers: Headers, name: str, lines: list[str]) -> None:
    """Add header lines behind those that are there."""
    name = escape(_UNSAFE_NAME, name)
    headers.extend((name, _safe(line)) for line in lines)


def find(headers: Headers, name: str) -> list[str]:
    """All values of a header; nginx finds names without regard to case, `_` standing for `-`."""
    wanted = name.lower().replace("_", "-")
    return [value for key, value in headers if key.lower().replace("_", "-") == wanted]


def table(headers: Headers, limit: int = DEFAULT_COUNT) -> dict[str, object]:
    """Kong's table of headers: lower-case names, a list where a name comes more than once."""
    found: dict[str, object] = {}
    for name, value in headers[:limit]:
        key = name.lower()
        have = found.get(key)
        if have is None:
            found[key] = value
        elif isinstance(have, list):
            have.append(value)
        else:
            found[key] = [have, value]
    return found


def limit(value: object, what: str) -> int:
    """The number of headers or arguments asked for; LuaError outside 1 to 1000."""
    if value is None:
        return DEFAULT_COUNT
    if lua_type(value) != "number":
        raise LuaError(f"{what} must be a number")
    wanted = integer(value, f"{what} must be a number")
    if wanted < 1:
        raise LuaError(f"{what} must be >= 1")
    if wanted > MAX_COUNT:
        raise LuaError(f"{what} must be <= {MAX_COUNT}")
    return wanted
