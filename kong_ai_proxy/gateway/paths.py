"""Paths as Kong 3.10 sees them: normalised to find a Route, joined and escaped for the upstream.

Pure functions over `str` decoded with surrogateescape (see context.py). The rules are those of
RFC 3986 with Kong's choices: reserved characters are neither encoded nor decoded, so `%2F` stays
one; everything else is decoded to match a Route and encoded again for the upstream.
"""

from __future__ import annotations

import re

_RESERVED = frozenset(b"!*'();:@&=+$,/?%#[]")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(rb"[^!#$&'()*+,/:;=?@\[\]A-Za-z0-9\-_.~%]")


def wire(text: str) -> bytes:
    """The bytes that a text of the wire stands for."""
    return text.encode("utf-8", "surrogateescape")


def text(data: bytes) -> str:
    """Bytes of the wire as text, none of them lost."""
    return data.decode("utf-8", "surrogateescape")


def _decode_escape(match: re.Match[bytes]) -> bytes:
    value = int(match[1], 16)
    return match[0].upper() if value in _RESERVED else bytes([value])


def normalize(path: str) -> str:
    """The path by which Routes are looked up.

    Percent-encoding is undone except for reserved characters, `.` and `..` segments are resolved
    (never above the root) and runs of slashes become one.
    """
    decoded = text(_ESCAPED.sub(_decode_escape, wire(path)))
    if "." not in decoded and "//" not in decoded:
        return decoded
    return _resolve_segments(decoded)


def _resolve_segments(path: str) -> str:
    segments = path.split("/")
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    slash = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + slash


def escape(path: str) -> str:
    """A normalised path made safe for a request line: what no URL may hold is percent-encoded."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], wire(path)).decode("ascii")


def sanitize_postfix(postfix: str) -> str:
    """The remainder behind a matched path, without a leading `.` or `..` segment."""
    if postfix in (".", ".."):
        return ""
    for prefix in ("./", "../"):
        if postfix.startswith(prefix):
            return postfix[len(prefix) :]
    return postfix


def join(base: str, path: str, remainder: str, *, strip: bool) -> str:
    """The upstream's path: the Service's `base` and the request's `path`, not yet escaped.

    `remainder` is what is left of `path` behind the part that the Route matched. With `strip` it
    alone follows `base`, else the whole path does. One slash stands between the two (Kong's
    `path_handling: v0`).
    """
    if not strip:
        return base + path[1:] if base.endswith("/") else _without_root(base, path)
    if remainder == "":
        return _join_nothing(base, path)
    return base.removesuffix("/") + ("" if remainder.startswith("/") else "/") + remainder


def _without_root(base: str, path: str) -> str:
    return base if path == "/" else base + path


def _join_nothing(base: str, path: str) -> str:
    """All of the path was stripped: a trailing slash survives only if the request had one."""
    if base == "/":
        return "/"
    slash = path.endswith("/") and (path != "/" or base.endswith("/"))
    return base.removesuffix("/") + ("/" if slash else "")
