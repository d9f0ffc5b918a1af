"""Some members of a JSON object that passes by in chunks, whatever its size.

An answer may hold megabytes of image or thousands of floats, of which nobody here needs more than
its `usage` and `model`. So values that are not asked for are followed to their end, not parsed:
what stands inside them is not checked. JSON: RFC 8259.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import orjson

# All patterns and searches see a chunk in which escapes of quotes are painted over, see `_painted`.
_SPACE = re.compile(rb"[ \t\n\r]*+")
_KEY = re.compile(rb'[ \t\n\r]*+("[^"]*+")[ \t\n\r]*+:[ \t\n\r]*+')
_SCALAR = re.compile(rb'[^,:}\]{\["\s]*+')

# Short strings and numbers are matched by a pattern, many at a time; long ones are leapt over with
# a search for one byte, which is a hundred times quicker.
_TEXT = rb'"[^"]{0,64}+"'
_FLAT = rb'[^"{}\[\]]{0,256}+'
_LEAP = 16 << 10
_MARKS = (b'"', b"]", b"}", b"[", b"{")


def _item(levels: int) -> bytes:
    """Pattern of a string, or of a container with at most `levels` of them in each other."""
    if levels == 0:
        return _TEXT
    inside = _FLAT + rb"(?:" + _item(levels - 1) + _FLAT + rb")*+"
    return rb"(?:" + _TEXT + rb"|[\[{]" + inside + rb"[\]}])"


# As far as it goes without something long, a deeper container, or one that ends in another chunk.
_RUN = re.compile(_FLAT + rb"(?:" + _item(3) + _FLAT + rb")*+")

_MAX_DEPTH = 1024
"""As orjson has it."""
_MAX_ESCAPED = 12
"""Bytes that one character of a name can be written with: a surrogate pair of escapes."""

_LAST = frozenset(b"}\n")
_QUOTE = b'"'[0]
_OPENING = frozenset(b"{[")
_BRACKETS = frozenset(b"{[]}")
_SCALAR_STARTS = frozenset(b"-0123456789tfn")


class MemberReader:
    """Reads chosen members of the top level of one JSON object.

    Holds one name or value that is asked for and not yet complete, and the parsed ones; so at most
    `max_value` bytes and what those of each name parse to. Every byte is looked at a fixed number
    of times, however the object is cut. Nothing is raised: see `broken`.
    """

    __slots__ = (
        "_chunk",
        "_depth",
        "_escaped",
        "_held",
        "_in_text",
        "_limit",
        "_max_value",
        "_name",
        "_names",
        "_step",
        "broken",
        "complete",
        "members",
    )

    def __init__(self, names: Iterable[str], max_value: int = 64 << 10) -> None:
        """`names`: the members to read; `max_value`: longest text of one in bytes."""
        self.members: dict[str, object] = {}
        """Values so far, as Python data; the last counts of several under one name. One that is
        too long is left out."""
        self.broken = False
        """It is not a JSON object, as far as it was looked at; nothing more is read."""
        self.complete = False
        """The object has ended."""
        self._names = frozenset(names)
        self._max_value = max_value
        self._step: Callable[[MemberReader, bytes, int], int] = MemberReader._begin
        self._name = ""
        self._chunk = b""
        self._held = bytearray()
        self._limit = 0  # bytes to hold of the name or value under way; 0: it is not wanted
        self._depth = 0  # open containers of that value
        self._in_text = False  # inside a string of that value
        self._escaped = False  # the last byte was a backslash that escapes the next

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        if not chunk:
            return
        whole = self._step is MemberReader._begin and chunk[-1] in _LAST
        if whole and self._read_whole(chunk):
            return
        self._chunk = chunk
        painted = _painted(chunk, self._escaped)
        self._escaped = painted.endswith(b"\\")
        at = 0
        while at < len(chunk):
            at = self._step(self, painted, at)
        self._chunk = b""

    def _read_whole(self, chunk: bytes) -> bool:
        """The common case of a small answer in one piece. False: go through it step by step."""
        if len(chunk) > self._max_value:
            return False
        try:
            value = orjson.loads(chunk)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(value, dict):
            return False
        for name in self._names:
            if name in value:
                self.members[name] = value[name]
        self._finish(0)
        return True

    # Steps. Each is called with the painted chunk and the offset of a byte in it, and returns the
    # next offset.

    def _begin(self, chunk: bytes, at: int) -> int:
        at = _after_space(chunk, at)
        if at == len(chunk):
            return at
        self._step = MemberReader._first_key
        return at + 1 if chunk[at] == b"{"[0] else self._break(chunk)

    def _first_key(self, chunk: bytes, at: int) -> int:
        at = _after_space(chunk, at)
        if chunk[at : at + 1] == b"}":
            return self._finish(at + 1)
        return self._next_key(chunk, at) if at < len(chunk) else at

    def _next_key(self, chunk: bytes, at: int) -> int:
        if key := _KEY.match(chunk, at):
            self._enter(self._chunk[key.start(1) : key.end(1)])
            return key.end()
        at = _after_space(chunk, at)
        if at == len(chunk):
            return at
        if chunk[at] != _QUOTE:
            return self._break(chunk)
        self._held = bytearray(b'"')
        self._limit = 2 + _MAX_ESCAPED * max(map(len, self._names), default=0)
        self._step = MemberReader._key
        return at + 1

    def _key(self, chunk: bytes, at: int) -> int:
        end = _text_end(chunk, at)
        self._hold(chunk, at, end)
        if end < 0:
            return len(chunk)
        self._step = MemberReader._colon
        return end

    def _colon(self, chunk: bytes, at: int) -> int:
        at = _after_space(chunk, at)
        if at == len(chunk):
            return at
        if chunk[at] != b":"[0]:
            return self._break(chunk)
        self._enter(bytes(self._held))
        return at + 1

    def _value(self, chunk: bytes, at: int) -> int:
        at = _after_space(chunk, at)
        if at == len(chunk):
            return at
        first = chunk[at]
        if first == _QUOTE:
            self._step = MemberReader._text
        elif first in _OPENING:
            self._depth = 1
            self._step = MemberReader._container
        elif first in _SCALAR_STARTS:
            self._step = MemberReader._scalar
        else:
            return self._break(chunk)
        self._hold(chunk, at, at + 1)
        return at + 1

    def _text(self, chunk: bytes, at: int) -> int:
        return self._value_part(chunk, at, _text_end(chunk, at))

    def _container(self, chunk: bytes, at: int) -> int:
        end = self._container_end(chunk, at)
        return self._break(chunk) if self._depth > _MAX_DEPTH else self._value_part(chunk, at, end)

    def _scalar(self, chunk: bytes, at: int) -> int:
        end = _end(_SCALAR, chunk, at)
        return self._value_part(chunk, at, end if end < len(chunk) else -1)

    def _separator(self, chunk: bytes, at: int) -> int:
        at = _after_space(chunk, at)
        if at == len(chunk):
            return at
        if chunk[at] == b","[0]:
            self._step = MemberReader._next_key
            return at + 1
        return self._finish(at + 1) if chunk[at] == b"}"[0] else self._break(chunk)

    def _after_object(self, chunk: bytes, at: int) -> int:
        return len(chunk) if _after_space(chunk, at) == len(chunk) else self._break(chunk)

    def _ignore(self, chunk: bytes, _at: int) -> int:
        return len(chunk)

    # What steps have in common.

    def _finish(self, at: int) -> int:
        self.complete = True
        self._step = MemberReader._after_object
        return at

    def _break(self, chunk: bytes) -> int:
        self.broken = True
        self._held = bytearray()
        self._step = MemberReader._ignore
        return len(chunk)

    def _enter(self, key: bytes) -> None:
        """Go on to the value of the member with this key, which is JSON; b"" for a long one."""
        self._name = _name(key)
        self._held = bytearray()
        self._limit = self._max_value if self._name in self._names else 0
        if self._limit:
            self.members.pop(self._name, None)
        self._step = MemberReader._value

    def _hold(self, chunk: bytes, start: int, end: int) -> None:
        """Keep a part of a name or value; end < 0: the rest of the chunk."""
        if not self._limit:
            return
        end = end if end >= 0 else len(chunk)
        if len(self._held) + end - start > self._limit:
            self._held = bytearray()
            self._limit = 0
        else:
            self._held += self._chunk[start:end]

    def _value_part(self, chunk: bytes, start: int, end: int) -> int:
        """A value goes on from `start`, and ends before `end` or, when negative, not yet."""
        self._hold(chunk, start, end)
        if end < 0:
            return len(chunk)
        self._step = MemberReader._separator
        if self._limit:
            try:
                self.members[self._name] = orjson.loads(self._held)
            except orjson.JSONDecodeError:
                return self._break(chunk)
        return end

    def _container_end(self, chunk: bytes, at: int) -> int:
        """The offset behind the container in which `at` is; -1 when it goes on."""
        while self._depth <= _MAX_DEPTH:
            if self._in_text:
                at = _text_end(chunk, at)
                if at < 0:
                    return -1
                self._in_text = False
            at = _end(_RUN, chunk, at)
            if at == len(chunk):
                return -1
            if chunk[at] == _QUOTE:
                self._in_text = True
                at += 1
            elif chunk[at] not in _BRACKETS:
                at = _leap(chunk, at)
            elif self._turn(chunk[at]):
                at += 1
            else:
                return at + 1
        return -1

    def _turn(self, bracket: int) -> int:
        """The depth after `bracket`."""
        self._depth += 1 if bracket in _OPENING else -1
        return self._depth


def _end(pattern: re.Pattern[bytes], chunk: bytes, at: int) -> int:
    match = pattern.match(chunk, at)
    assert match is not None  # each of them matches nothing at all as well
    return match.end()


def _after_space(chunk: bytes, at: int) -> int:
    return _end(_SPACE, chunk, at)


def _leap(chunk: bytes, at: int) -> int:
    """Over numbers or space to the next string or bracket, or as far as one leap goes."""
    end = min(at + _LEAP, len(chunk))
    for mark in _MARKS:
        found = chunk.find(mark, at, end)
        end = found if found >= 0 else end
    return end


def _text_end(chunk: bytes, at: int) -> int:
    """The offset behind the string in which `at` is; -1 when it goes on in the next chunk."""
    return chunk.find(b'"', at) + 1 or -1


def _painted(chunk: bytes, escaped: bool) -> bytes:
    """`chunk` with what looks like the end of a string but is not made unrecognisable, at the same
    length. Outside of strings JSON has no backslashes.

    `escaped`: the byte before was a backslash that escapes the first.
    """
    if escaped:
        chunk = b"_" + chunk[1:]
    if b"\\" not in chunk:
        return chunk
    return chunk.replace(rb"\\", b"__").replace(rb"\"", b"__")


def _name(key: bytes) -> str:
    try:
        return str(orjson.loads(key))
    except orjson.JSONDecodeError:
        return ""
