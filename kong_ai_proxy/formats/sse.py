"""Server-sent events as bytes: where one event ends and the next begins, and nothing lost of it.

Framing and fields: WHATWG HTML, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event
stream" (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"

# A CR that is the last byte so far may be half of a CRLF, so it counts only when another byte
# follows. After a bare CR it counts at once: a stream that ends its lines with CR would otherwise
# come one event late.
_BLANK = re.compile(rb"\n|\r(?:\n|(?=.))", re.DOTALL)
_BOUNDARY = re.compile(rb"\n(?:\n|\r(?:\n|(?=.)))|\r\r", re.DOTALL)
_SIGNS = (b"\n\n", b"\n\r", b"\r\r")
"""Of these each boundary has one."""
_OVERLAP = 2
"""Bytes of a boundary that can have come before the chunk that completes it."""


class SseError(ValueError):
    """An event is longer than the reader may hold. `raw` is all that no event has given back,
    so that the stream can go on unread, byte for byte."""

    def __init__(self, limit: int, raw: bytes) -> None:
        super().__init__(f"a server-sent event is longer than {limit} bytes")
        self.raw = raw


class Event(NamedTuple):
    """One event with its bytes."""

    raw: bytes
    """As received, the blank line that ends it included."""
    name: bytes
    """The last `event` field; b"" for none, which means `message`."""
    data: bytes | None
    """The `data` fields joined with LF; None where there is none, as in a comment or a lone blank
    line: such an event is nothing to a client, but its bytes belong to the stream."""


class SseReader:
    """Cuts a stream into events. The `raw` of all events, in order, are the stream.

    Holds the last unfinished event, which is at most `max_event` bytes long, and a chunk at most.
    Each byte is looked at a fixed number of times, and the events are the same, however the stream
    is cut into chunks.
    """

    __slots__ = ("_failed", "_held", "_max", "_ready", "_started")

    def __init__(self, max_event: int = 1 << 20) -> None:
        """`max_event`: the longest event in bytes, its field names and line ends included.

        An image in base64 is one event of several MB: a stream of those needs a larger limit.
        """
        self._max = max_event
        self._held = bytearray()
        self._started = False  # the first event has begun, a byte order mark is behind us
        self._ready = False  # started, and nothing is held
        self._failed = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes.

        Raises SseError when an event is too long. Events before it in the same chunk are returned
        first; the error then comes with the next call, and with every one after it.
        """
        if self._ready:
            event = _simple(chunk, 0)  # nearly every chunk is one
            if event is not None and len(event.raw) == len(chunk) <= self._max:
                return [event]
            return self._read(chunk)
        held = self._held
        if self._failed:
            raise self._error(chunk)
        scanned = max(len(held) - _OVERLAP, 0)
        held += chunk
        if len(held) <= self._max and not self._may_end(scanned):
            return []
        return self._read(self._take(), scanned)

    def end(self) -> list[Event]:
        """What the stream's end leaves: an event whose blank line never came, or nothing.

        A client would drop it (9.2.6), but providers do leave out the last blank line, and what
        its data is worth only the caller can tell. Raises SseError as `feed` does.
        """
        if self._failed:
            raise self._error(b"")
        raw = self._take()
        self._ready = False
        return [self._event(raw)] if raw else []

    def _take(self) -> bytes:
        held = bytes(self._held)
        self._held = bytearray()
        return held

    def _error(self, chunk: bytes) -> SseError:
        return SseError(self._max, self._take() + chunk)

    def _may_end(self, scanned: int) -> bool:
        # At the start of an event a single line end is a blank line, with or without a mark before.
        held = self._held
        if scanned < len(_BOM):
            return True
        if held.find(b"\n", scanned) < 0 and held.find(b"\r", scanned) < 0:
            return False
        return any(held.find(sign, scanned) >= 0 for sign in _SIGNS)

    def _read(self, data: bytes, scanned: int = 0) -> list[Event]:
        """The events of `data`, which begins where an event does; the rest is held.

        Before `scanned` no event ends.
        """
        separator: bytes | None = None
        events: list[Event] = []
        at = 0
        while at < len(data):
            event = _simple(data, at) if self._started and at >= scanned else None
            if event is not None:
                end = at + len(event.raw)
            else:
                separator = _separator(data) if separator is None else separator
                end = self._event_end(data, at, scanned, separator)
            if (end or len(data)) - at > self._max:
                self._failed = True
                break
            if not end:
                break
            events.append(event or self._event(data[at:end]))
            at = end
        self._held += data[at:]
        self._ready = self._started and not self._held
        if self._failed and not events:
            raise self._error(b"")
        return events

    def _event_end(self, data: bytes, at: int, scanned: int, separator: bytes) -> int:
        """Where the event that begins at `at` ends; 0 for not yet."""
        start = at
        if not self._started:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                return 0
            start = len(_BOM) if data.startswith(_BOM) else 0
        if data[start : start + 1] in b"\r\n":
            blank = _BLANK.match(data, start)
            return blank.end() if blank else 0
        start = max(start, scanned)
        if separator:
            found = data.find(separator, max(start - len(separator), at))
            return found + len(separator) if found >= 0 else 0
        boundary = _BOUNDARY.search(data, start)
        return boundary.end() if boundary else 0

    def _event(self, raw: bytes) -> Event:
        event = _simple(raw, 0) if self._started else None
        if event is not None and len(event.raw) == len(raw):
            return event
        text = raw if self._started else raw.removeprefix(_BOM)
        self._started = True
        return Event(raw, *_fields(text))


def _simple(data: bytes, at: int) -> Event | None:
    """The event that begins at `at`, where it is one line of data, alone or behind the event's
    name, as nearly every event is. None for any other, and for one without an end."""
    name, start = b"", at + 6
    end = data.find(b"\n", at)
    if end < 0:
        return None
    if not data.startswith(b"data: ", at):
        if not data.startswith(b"event: ", at) or not data.startswith(b"data: ", end + 1):
            return None
        name, start = data[at + 7 : end].removesuffix(b"\r"), end + 7
        end = data.find(b"\n", start)
    stop = end + 2
    if not data.startswith(b"\n\n", end):
        if not data.startswith(b"\r\n\r\n", end - 1):
            return None
        end, stop = end - 1, end + 3
    text = data[start:end]
    return None if b"\r" in text or b"\r" in name else Event(data[at:stop], name, text)


def _separator(data: bytes) -> bytes:
    """What stands between events where all lines end alike, LF or CRLF; b"" where they do not.

    To search for fixed bytes is twenty times quicker than for a pattern.
    """
    if b"\r" not in data:
        return b"\n\n"
    pairs = data.count(b"\r\n")
    return b"\r\n\r\n" if data.count(b"\r") == pairs == data.count(b"\n") else b""


def _fields(text: bytes) -> tuple[bytes, bytes | None]:
    name, lines = b"", []
    for line in text.splitlines():  # of bytes: at LF, CR and CRLF only
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b"\n".join(lines) if lines else None
