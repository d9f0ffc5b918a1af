"""A JSON array that comes in pieces: its elements as bytes, as soon as each is complete.

Google's streaming methods answer with one array of objects where `alt=sse` is not asked for
(https://cloud.google.com/apis/docs/system-parameters, `alt`). Grammar: RFC 8259. Where an element
ends is all that is looked at; whether it is valid JSON the caller's parser finds out.
"""

from __future__ import annotations

import re

import orjson

_BLANKS = b" \t\n\r"

# All of these are possessive: no byte is looked at twice but at the edges of chunks, and at
# brackets, which the next, simpler pattern looks at again.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'(?:[^"{}\[\]]++|' + _TEXT + rb")*+"
_SHALLOW = rb'(?:[^"{}\[\]]++|' + _TEXT + rb"|[{\[]" + _FLAT + rb"[}\]])*+"
_INSIDE = re.compile(rb'(?:[^"{}\[\]]++|' + _TEXT + rb"|[{\[]" + _SHALLOW + rb"[}\]])*+", re.DOTALL)
"""As much of the inside of an object or array as is surely inside of it."""
_REST_OF_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SCALAR = re.compile(rb'[^"{}\[\],]*+')
_BLANK = re.compile(rb"[ \t\n\r]*+")
_START = re.compile(rb"[ \t\n\r\xef\xbb\xbf]*+")
"""Blanks and a byte order mark, which may be cut too."""

_QUOTE, _OPEN = b'"', b"{["
_READY = frozenset({"first", "next", "between"})
_AFTER = {
    ("start", b"["): "first",
    ("first", b"]"): "after",
    ("between", b","): "next",
    ("between", b"]"): "after",
}
"""What a byte outside of the elements leads to, by what was expected."""
_FAULTS = {
    "start": "expected a JSON array",
    "between": "expected a comma between the elements of the JSON array",
    "after": "bytes after the end of the JSON array",
}


class JsonArrayError(ValueError):
    """The bytes are not an array, or an element is too long."""


class JsonArrayReader:
    """Cuts an array into its elements, the same ones however it is cut into chunks.

    An object or array is given as soon as its last bracket has come. Holds one unfinished element,
    which is at most `max_element` bytes long, and a chunk at most.
    """

    __slots__ = (
        "_closes",
        "_depth",
        "_escaped",
        "_failure",
        "_held",
        "_in_text",
        "_max",
        "_size",
        "_state",
    )

    def __init__(self, max_element: int = 1 << 20) -> None:
        self._max = max_element
        # start, first (an element or the end), next (an element), element (inside of one), between
        # (a comma or the end), after.
        self._state = "start"
        self._closes = False  # the element under way ends with a bracket
        self._depth = 0  # brackets open inside the element
        self._in_text = False
        self._escaped = False  # inside a text, and the last chunk ended with half of an escape
        self._held: list[bytes] = []  # of the element under way
        self._size = 0
        self._failure: str | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The elements that `chunk` completes, without the white space around them.

        Raises JsonArrayError. Elements before the fault in the same chunk are returned first; the
        error then comes with the next call, and with every one after it.
        """
        found: list[bytes] = []
        if self._state in _READY and self._failure is None and (whole := self._whole(chunk)):
            self._state = "between"
            return [whole]
        if self._failure is None:
            try:
                self._read(chunk, found)
            except JsonArrayError as error:
                self._failure = str(error)
                self._held = []
                if found:
                    return found
        if self._failure is not None:
            raise JsonArrayError(self._failure)
        return found

    def end(self) -> None:
        """There is no more. Raises JsonArrayError unless the array is complete."""
        if self._failure is None and self._state != "after":
            self._failure = "the JSON array ends too soon"
        if self._failure is not None:
            raise JsonArrayError(self._failure)

    def _whole(self, chunk: bytes) -> bytes:
        """The element that a chunk is, as most of them are; b"" for any other chunk.

        To parse it is quicker than to look for its brackets, and is done once for a chunk.
        """
        body = chunk.strip(_BLANKS)
        if self._state == "between":
            if not body.startswith(b","):
                return b""
            body = body[1:].lstrip(_BLANKS)
        if len(body) > self._max or not (body.startswith(b"{") and body.endswith(b"}")):
            return b""
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            return b""
        return body

    def _read(self, data: bytes, found: list[bytes]) -> None:
        at = 0
        while at < len(data):
            at = self._inside(data, at, found) if self._state == "element" else self._gap(data, at)

    def _gap(self, data: bytes, at: int) -> int:
        """Past what stands between elements; where the next one begins or `data` ends."""
        match = (_START if self._state == "start" else _BLANK).match(data, at)
        at = match.end() if match else at
        if at == len(data):
            return at
        byte = data[at : at + 1]
        after = _AFTER.get((self._state, byte))
        if after:
            self._state = after
            return at + 1
        if self._state in _FAULTS:
            raise JsonArrayError(_FAULTS[self._state])
        if byte in b",]":
            raise JsonArrayError("expected an element of the JSON array")
        self._state = "element"
        self._closes = byte in _OPEN
        return at

    def _inside(self, data: bytes, start: int, found: list[bytes]) -> int:
        """Past what belongs to the element under way, of which `start` is the next byte."""
        at = self._rest_of_text(data, start) if self._in_text else start
        while at < len(data):
            match = (_INSIDE if self._depth else _SCALAR).match(data, at)
            at = match.end() if match else at
            byte = data[at : at + 1]
            if not byte:
                break
            if byte == _QUOTE:
                self._in_text = True
                at = self._rest_of_text(data, at + 1)
                continue
            if self._depth == 0 and byte in b",]":
                self._finish(data[start:at], found)
                return at
            self._bracket(byte)
            at += 1
            if self._closes and not self._depth:
                self._finish(data[start:at], found)
                return at
        self._hold(data[start:])
        return len(data)

    def _rest_of_text(self, data: bytes, at: int) -> int:
        """Past the text that is open at `at`, or as much of it as there is."""
        if self._escaped and at < len(data):
            self._escaped = False
            at += 1
        match = _REST_OF_TEXT.match(data, at)
        at = match.end() if match else at
        if at < len(data):
            # Either the text's end, or a backslash that is the chunk's last byte.
            self._in_text = self._escaped = data[at : at + 1] != _QUOTE
            at += 1
        return at

    def _bracket(self, byte: bytes) -> None:
        if byte in _OPEN:
            self._depth += 1
        elif self._depth:
            self._depth -= 1
        else:
            raise JsonArrayError("a bracket is closed that was not opened")

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            raise JsonArrayError(f"an element of the JSON array is longer than {self._max} bytes")
        self._held.append(piece)

    def _finish(self, piece: bytes, found: list[bytes]) -> None:
        self._hold(piece)
        element = b"".join(self._held) if len(self._held) > 1 else piece
        found.append(element.rstrip(_BLANKS))
        self._held, self._size = [], 0
        self._state = "between"
