"""AWS event streams as bytes: messages with headers and a payload, and checksums over both.

A message is its whole length, the length of its headers and the CRC of these two (each 32 bits, big
endian), then the headers, the payload, and a CRC over all before it. A header is the length of its
name, the name, a type and a value.
https://smithy.io/2.0/aws/amazon-eventstream.html,
https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct, error, unpack_from
from typing import NamedTuple, NoReturn
from zlib import crc32

HeaderValue = bool | int | bytes | str
"""Timestamps are milliseconds since 1970, UUIDs their sixteen bytes."""

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = Struct("!III")
_CRC = Struct("!I")
_AROUND = 16  # bytes of a message that are neither headers nor payload
_MAX_HEADERS = 128 << 10
_TRUE, _FALSE, _BYTES, _STRING, _UUID = 0, 1, 6, 7, 9
_NUMBERS = {2: "!b", 3: "!h", 4: "!i", 5: "!q", 8: "!q"}
_SIZES = {"!b": 1, "!h": 2, "!i": 4, "!q": 8}


class EventStreamError(ValueError):
    """The bytes are no event stream, or a message is too long. What follows cannot be read."""


class Message(NamedTuple):
    """One message."""

    headers: Mapping[str, HeaderValue]
    """Shared between messages: not to be changed."""
    payload: bytes

    def header(self, name: str) -> str:
        """The header `name` where it is a string, else ""."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class EventStreamReader:
    """Cuts a stream into messages, the same ones however the stream is cut into chunks.

    Holds the last unfinished message, which is at most `max_message` bytes long, and a chunk at
    most. Each byte is looked at a fixed number of times.
    """

    __slots__ = ("_failed", "_held", "_max", "_need")

    def __init__(self, max_message: int = 16 << 20) -> None:
        """`max_message`: the longest message in bytes, all in all."""
        self._max = max_message
        self._held = bytearray()
        self._need = _PRELUDE.size
        self._failed = ""

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that `chunk` completes.

        Raises EventStreamError where a checksum or a length is wrong. Messages before it in the
        same chunk are returned first; the error then comes with the next call, and with every one
        after it.
        """
        if self._failed:
            raise EventStreamError(self._failed)
        if not self._held:
            return self._read(chunk)
        self._held += chunk
        if len(self._held) < self._need:
            return []
        data = bytes(self._held)
        self._held.clear()
        return self._read(data)

    def end(self) -> None:
        """The stream is over. Raises EventStreamError where that is within a message."""
        if self._failed:
            raise EventStreamError(self._failed)
        if self._held:
            raise EventStreamError("the event stream ends within a message")

    def _read(self, data: bytes) -> list[Message]:
        """The messages of `data`, which begins where one does; the rest is held."""
        messages: list[Message] = []
        at = 0
        try:
            while length := self._length(data, at):
                messages.append(_message(data, at, at + length))
                at += length
        except EventStreamError as problem:
            self._failed = str(problem)
            if not messages:
                raise
            return messages
        if at < len(data):
            self._held += data[at:] if at else data
        return messages

    def _length(self, data: bytes, at: int) -> int:
        """Of the message that begins at `at`; 0 where it is not all there yet."""
        there = len(data) - at
        if there < _PRELUDE.size:
            self._need = _PRELUDE.size
            return 0
        length, headers, checksum = _PRELUDE.unpack_from(data, at)
        if crc32(data[at : at + 8]) != checksum:
            _wrong("the checksum of a message's length does not fit: this is no AWS event stream")
        if length > self._max:
            _wrong(f"a message of {length} bytes is longer than {self._max}")
        if headers > min(length - _AROUND, _MAX_HEADERS):
            _wrong(f"a message of {length} bytes cannot have {headers} bytes of headers")
        self._need = length
        return int(length) if there >= length else 0


def _message(data: bytes, start: int, end: int) -> Message:
    checked = end - 4
    if crc32(data[start:checked]) != _CRC.unpack_from(data, checked)[0]:
        _wrong("the checksum of a message does not fit its content")
    headers_end = start + 12 + _CRC.unpack_from(data, start + 4)[0]
    return Message(_headers(data[start + 12 : headers_end]), data[headers_end:checked])


# A stream has a handful of different headers, repeated over and over.
@lru_cache(maxsize=256)
def _headers(data: bytes) -> Mapping[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode()
            value, at = _value(data, data[name_end], name_end + 1)
            if name in headers or at > len(data):
                _wrong(f"the header {name!r} of a message occurs twice or has no end")
            headers[name] = value
    except (IndexError, error, UnicodeDecodeError):
        _wrong("the headers of a message cannot be read")
    return headers


def _value(data: bytes, kind: int, at: int) -> tuple[HeaderValue, int]:
    """A header's value and where the next header begins."""
    if kind in (_BYTES, _STRING):
        start = at + 2
        end = start + int(unpack_from("!H", data, at)[0])
        return (data[start:end].decode() if kind == _STRING else data[start:end]), end
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        return int(unpack_from(number, data, at)[0]), at + _SIZES[number]
    if kind == _UUID:
        return data[at : at + 16], at + 16
    if kind not in (_TRUE, _FALSE):
        _wrong(f"a header of a message has the unknown type {kind}")
    return kind == _TRUE, at


def _wrong(text: str) -> NoReturn:
    raise EventStreamError(text)


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message."""
    return framed(encoded_headers(headers), payload)


def encoded_headers(headers: Mapping[str, str]) -> bytes:
    """Headers as a message has them, for `framed`. Names have at most 255 bytes in UTF-8, values
    65535."""
    parts: list[bytes] = []
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        parts.append(bytes([len(key)]) + key + b"\7" + len(text).to_bytes(2, "big") + text)
    return b"".join(parts)


def framed(headers: bytes, payload: bytes) -> bytes:
    """One message of headers that are already encoded: what a stream has many of."""
    lengths = (_AROUND + len(headers) + len(payload)).to_bytes(4, "big")
    lengths += len(headers).to_bytes(4, "big")
    whole = b"".join((lengths, crc32(lengths).to_bytes(4, "big"), headers, payload))
    return whole + crc32(whole).to_bytes(4, "big")
