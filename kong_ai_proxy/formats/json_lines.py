"""Newline-delimited JSON as bytes: where one line ends and the next begins.

Framing: https://github.com/ndjson/ndjson-spec. A JSON text has no line end of its own, and a
carriage return before the line end is white space to JSON parsers.
"""

from __future__ import annotations


class JsonLinesError(ValueError):
    """A line is longer than the reader may hold."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a line of the stream is longer than {limit} bytes")


class JsonLinesReader:
    """Cuts a stream into lines, the same ones however it is cut into chunks.

    Holds the last unfinished line, which is at most `max_line` bytes long, and a chunk at most.
    Each byte is looked at once.
    """

    __slots__ = ("_failed", "_held", "_max", "_size")

    def __init__(self, max_line: int = 1 << 20) -> None:
        """`max_line`: the longest line in bytes, without its end."""
        self._max = max_line
        self._held: list[bytes] = []
        self._size = 0
        self._failed = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their ends; blank ones are left out.

        Raises JsonLinesError when a line is too long. Lines before it in the same chunk are
        returned first; the error then comes with the next call, and with every one after it.
        """
        if self._failed:
            raise JsonLinesError(self._max)
        *ended, rest = chunk.split(b"\n")
        if ended and self._held:
            ended[0] = b"".join([*self._held, ended[0]])
            self._held = []
            self._size = 0
        if rest:
            self._held.append(rest)
            self._size += len(rest)
        return self._checked(ended)

    def end(self) -> list[bytes]:
        """What the stream's end leaves: a line whose end never came, or nothing. Raises
        JsonLinesError as `feed` does."""
        if self._failed:
            raise JsonLinesError(self._max)
        line = b"".join(self._held)
        self._held = []
        return [line] if line.strip() else []

    def _checked(self, lines: list[bytes]) -> list[bytes]:
        found = []
        for line in lines:
            if len(line) > self._max:
                self._fail()
                break
            if line and not line.isspace():
                found.append(line)
        if self._size > self._max:
            self._fail()
        if self._failed and not found:
            raise JsonLinesError(self._max)
        return found

    def _fail(self) -> None:
        self._failed = True
        self._held = []
        self._size = 0
