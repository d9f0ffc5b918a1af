"""Paths and query strings as nginx and Kong write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from kong_ai_proxy.gateway.pdk.base import LuaError, lua_type, to_string
from kong_ai_proxy.gateway.pdk.headers import escape

_RESERVED = frozenset(b"!*'();:@&=+$,/?%#[]")
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
# What Kong percent-encodes in a path it sends on: all but reserved and unreserved characters.
_NOT_IN_PATH = re.compile(rb"[^!#$&'()*+,/:;=?@\[\]A-Za-z0-9\-_.~%]")
_NOT_IN_QUERY = re.compile(rb"[\x00-\x20\x7f]")  # what ngx.req.set_uri_args encodes


def escape_path(path: str) -> str:
    """What `set_path` makes of a path: safe in a request line, escapes that are there kept."""
    return escape(_NOT_IN_PATH, path)


def escape_query(query: str) -> str:
    """What `set_raw_query` makes of a query string."""
    return escape(_NOT_IN_QUERY, query)


def _decode(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    return match[0].upper() if byte in _RESERVED else bytes((byte,))


def normalize(path: str) -> str:
    """`kong.request.get_path`: unreserved escapes decoded, dot segments and double slashes gone.

    Reserved characters stay escaped, so `%2F` is no slash.
    """
    if "%" in path:
        raw = _ENCODED.sub(_decode, path.encode("utf-8", "surrogateescape"))
        path = raw.decode("utf-8", "surrogateescape")
    if "." not in path and "//" not in path:
        return path
    kept: list[str] = []
    parts = path.split("/")
    for place, part in enumerate(parts[1:], 1):
        last = place == len(parts) - 1
        if part == "..":
            del kept[-1:]
        elif part not in (".", ""):
            kept.append("/" + part)
            continue
        if last:
            kept.append("/")
    return "".join(kept)


def _unescape(value: str) -> str:
    if "+" in value:
        value = value.replace("+", " ")
    if "%" not in value:
        return value
    raw = value.encode("utf-8", "surrogateescape")
    raw = _ENCODED.sub(lambda match: bytes((int(match[1], 16),)), raw)
    return raw.decode("utf-8", "surrogateescape")


def parse(query: str, limit: int) -> dict[str, object]:
    """nginx's table of arguments: True for a name without `=`, a list for a repeated name."""
    found: dict[str, object] = {}
    for item in query.split("&"):
        name, equals, value = item.partition("=")
        key = _unescape(name)
        if not key:
            continue
        if limit == 0:
            break
        limit -= 1
        new: object = _unescape(value) if equals else True
        have = found.get(key)
        if have is None:
            found[key] = new
        elif isinstance(have, list):
            have.append(new)
        else:
            found[key] = [have, new]
    return found


def _argument(name: str, value: object) -> str:
    if value is False:
        return ""
    key = _component(name)
    return key if value is True else f"{key}={_component(to_string(value))}"


def _component(value: str) -> str:
    return quote(value, safe="!'()*", errors="surrogateescape")


def encode(args: object) -> str:
    """`set_query`: the arguments sorted by name, each encoded by itself."""
    if lua_type(args) != "table":
        raise LuaError("args must be a table")
    if isinstance(args, list):
        if args:
            raise LuaError("arg keys must be strings")
        return ""
    assert isinstance(args, Mapping)
    found: list[str] = []
    for name, value in args.items():
        if not isinstance(name, str):
            raise LuaError("arg keys must be strings")
        many = list(value.values()) if isinstance(value, dict) else value
        many = many if isinstance(many, list) else [many]
        if any(lua_type(item) == "table" for item in many):
            raise LuaError("attempt to use table as query arg value")
        found.append("&".join(_argument(name, item) for item in many if item is not False))
    return "&".join(sorted(found))


def remove(query: str, name: str) -> str:
    """`clear_query_arg`: the other arguments, written again as form data with %20 for a space."""
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    kept = [(key, value) for key, value in pairs if key != name]
    encoded = urlencode(kept, safe="*", errors="surrogateescape")
    return encoded.replace("~", "%7E").replace("+", "%20")
