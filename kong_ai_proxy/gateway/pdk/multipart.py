"""multipart/form-data as `get_body` and `set_body` have it: names and values, no file parts."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from kong_ai_proxy.gateway.pdk.base import LuaError, lua_type, to_string

_BOUNDARY = re.compile(r'boundary=(?:"([^"]*)"|([^;]*))')
_NAME = re.compile(rb'(?:^|[;\s])name="([^"]*)"', re.IGNORECASE)


def _boundary(content_type: str) -> str | None:
    match = _BOUNDARY.search(content_type)
    return (match[1] or match[2]).strip() if match else None


def parse_multipart(raw: bytes, content_type: str) -> dict[str, str | list[str]]:
    """Each part's name with its value, a list where a name comes more than once; parts without a
    name are left out.
    """
    boundary = _boundary(content_type)
    found: dict[str, list[str]] = {}
    if not boundary:
        return {}
    for part in (b"\r\n" + raw).split(b"\r\n--" + boundary.encode())[1:]:
        head, blank, value = part.partition(b"\r\n\r\n")
        match = _NAME.search(head)
        if blank and match:
            name = match[1].decode("utf-8", "surrogateescape")
            found.setdefault(name, []).append(value.decode("utf-8", "surrogateescape"))
    return {name: many[0] if len(many) == 1 else many for name, many in found.items()}


def build_multipart(args: Mapping[object, object], content_type: str) -> tuple[bytes, str]:
    """The body and its content type; names sorted. LuaError for values that are not scalar."""
    for name, value in args.items():
        if not isinstance(name, str):
            kind = lua_type(name)
            raise LuaError(f'invalid key "{to_string(name)}": got {kind}, expected string')
        if lua_type(value) not in ("string", "number", "boolean"):
            kind = lua_type(value)
            wanted = "expected string, number or boolean"
            raise LuaError(f'invalid value "{name}": got {kind}, {wanted}')
    boundary = _boundary(content_type) or secrets.token_hex(8)
    lines: list[str] = []
    for name in sorted(str(name) for name in args):
        lines.append(f"--{boundary}\r\n")
        lines.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n')
        lines.append(f"{to_string(args[name])}\r\n")
    lines.append(f"--{boundary}--\r\n")
    body = "".join(lines).encode("utf-8", "surrogateescape")
    return body, f"multipart/form-data; boundary={boundary}"
