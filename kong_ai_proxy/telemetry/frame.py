"""The frame that brings log fields from the relay to the Lua shim in Kong.

It is the last piece of an answer's body: a record separator, the marker that the shim chose for
this request, a space, the length of the JSON as eight hexadecimal digits, a line feed, and the
JSON: one object from dotted names to values for `kong.log.set_serialize_value`. The shim takes it
out before the client sees it. The provider cannot forge one, since it never learns the marker.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.telemetry.bounded import encoded

MAX_FRAME = 4 * 1024 * 1024
"""Longest frame in bytes: the shim holds all of it in memory."""

_START = b"\x1e"
_MARKER = 32


def frame(marker: str, fields: Mapping[str, object]) -> bytes:
    """The frame for `fields`, whose payloads are shortened where it would become too long.

    `marker` is what the shim sent: 32 lower-case hexadecimal digits.
    """
    head = len(_START) + _MARKER + len(" 00000000\n")
    body = encoded(fields, MAX_FRAME - head)
    return b"%b%b %08x\n%b" % (_START, marker.encode("ascii"), len(body), body)
