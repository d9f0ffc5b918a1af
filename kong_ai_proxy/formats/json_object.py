"""A JSON object as it was sent: checked whole, changed only where it must be.

A chat request is mostly text that nobody here needs to look at. So the body is parsed once to be
sure of it, its top-level members are located, and a change is spliced in: what is not changed goes
on byte for byte, with its numbers, escapes and unknown fields as the client wrote them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

MAX_MEMBERS = 1000
"""More members than any request has; each costs time that other requests wait for."""

# Possessive all through: valid JSON needs no second try, and none is ever made.
_SPACE = rb"[ \t\n\r]*+"
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING = re.compile(_TEXT, re.DOTALL)
_KEY = re.compile(_SPACE + rb"(" + _TEXT + rb")" + _SPACE + rb":" + _SPACE, re.DOTALL)
_SCALAR = re.compile(rb"[^,}\]\s]++")
_SEPARATOR = re.compile(_SPACE + rb"[,}]")
_TOKEN = re.compile(rb'["{}\[\]]')
_BACKSLASH = ord("\\")


# Long strings are leapt over with a search for one byte, which is ten times quicker than a pattern.
# Where there are very many short ones or brackets, the standard library's C parser finds the end:
# a step of ours for each would take seconds of a body that was made for it.
_LEAPS = 2000
_PARSER = json.JSONDecoder(parse_int=str, parse_float=str)
_ESCAPES = 16

REMOVED = object()
"""The value that takes a member out, for `JsonObject.edited`."""


class JsonError(ValueError):
    """The bytes are not a JSON object that everybody reads the same way."""


class _Member(NamedTuple):
    """Where one member stands: offsets of its key and its value."""

    key_start: int
    value_start: int
    value_end: int


class JsonObject:
    """A parsed JSON object together with its text.

    `value` is the object as Python data and must not be changed; `edited` gives changed bytes.
    """

    __slots__ = ("_members", "raw", "value")

    def __init__(self, raw: bytes) -> None:
        """Parse `raw`. Raises JsonError, saying where, unless it is one JSON object in UTF-8
        without a member named twice.

        Two parsers that disagree about which of two members counts would let a request past a
        rule (RFC 8259 section 4 leaves it open), so a repeated name is refused.
        """
        self.raw = raw
        self.value = _loads(raw)
        self._members = _members(raw)

    def edited(self, changes: Mapping[str, object]) -> bytes:
        """The object with `changes` made: a new value, or REMOVED; absent names are added.

        Without changes the original bytes are returned, not a copy.
        """
        if not changes:
            return self.raw
        view = memoryview(self.raw)
        parts: list[bytes | memoryview] = []
        for name, member in self._members.items():
            if name not in changes:
                parts.append(view[member.key_start : member.value_end])
            elif changes[name] is not REMOVED:
                parts.append(_member(name, changes[name]))
        for name, value in changes.items():
            if name not in self._members and value is not REMOVED:
                parts.append(_member(name, value))
        return b"{" + b",".join(parts) + b"}"


def _loads(raw: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise JsonError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise JsonError(f"expected a JSON object, got {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _members(raw: bytes) -> dict[str, _Member]:
    """The top-level members of `raw`, which is known to be a valid JSON object."""
    members: dict[str, _Member] = {}
    at = raw.index(b"{") + 1
    while match := _KEY.match(raw, at):
        name = orjson.loads(match[1])
        if name in members:
            raise JsonError(f"the member {name!r} occurs twice")
        if len(members) == MAX_MEMBERS:
            raise JsonError(f"more than {MAX_MEMBERS} members")
        end = _value_end(raw, match.end())
        members[name] = _Member(match.start(1), match.end(), end)
        separator = _SEPARATOR.match(raw, end)
        at = separator.end() if separator else len(raw)
    return members


def _value_end(raw: bytes, start: int) -> int:
    first = raw[start : start + 1]
    if first == b'"':
        return _string_end(raw, start)
    if first in (b"{", b"["):
        return _container_end(raw, start)
    scalar = _SCALAR.match(raw, start)
    return scalar.end() if scalar else start


def _container_end(raw: bytes, start: int) -> int:
    depth, at = 0, start
    for _ in range(_LEAPS):
        token = _found(_TOKEN.search(raw, at))
        if token[0] == b'"':
            at = _string_end(raw, token.start())
            continue
        at = token.end()
        depth += 1 if token[0] in b"{[" else -1
        if depth == 0:
            return at
    try:
        # One character for each byte, so that places are the same; what they say does not matter.
        return _PARSER.raw_decode(raw.decode("latin-1"), start)[1]
    except RecursionError:
        raise JsonError("nested too deeply") from None


def _string_end(raw: bytes, quote: int) -> int:
    end = quote
    for _ in range(_ESCAPES):
        end = raw.index(b'"', end + 1)
        if not _is_escaped(raw, end):
            return end + 1
    return _found(_STRING.match(raw, quote)).end()


def _found(match: re.Match[bytes] | None) -> re.Match[bytes]:
    assert match is not None  # orjson has read it: what is opened is closed
    return match


def _is_escaped(raw: bytes, at: int) -> bool:
    start = at
    while raw[start - 1] == _BACKSLASH:
        start -= 1
    return (at - start) % 2 == 1


def _member(name: str, value: object) -> bytes:
    return orjson.dumps(name) + b":" + orjson.dumps(value)
