"""Masks as OpenAI has them, PNG files that are transparent where an image is to be edited, made
into those that other providers take, black and white.

PNG (third edition): https://www.w3.org/TR/png-3/, sections 5 (chunks), 9 (filters), 11.2 (IHDR).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator
from typing import NamedTuple

from kong_ai_proxy.formats.errors import FormatError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_PIXELS = 3840 * 2160
"""Of a mask: the largest image that OpenAI makes."""
MAX_SIDE = 4096

_AT_ONCE = 1 << 16  # pixels between two rests
_MOST_ROWS = 256  # likewise
_GREY_ALPHA, _RGBA, _RGB = 4, 6, 2
_MOST_CHUNKS = 1 << 14
_CHANNELS = {_GREY_ALPHA: 2, _RGBA: 4}
_BROKEN = "mask: expected a PNG file; this one is broken"


def size_of(content: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file, of which the beginning is enough; None for anything else."""
    if len(content) < 24 or not content.startswith(SIGNATURE) or content[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", content, 16)
    return (width, height) if width and height else None


def black_and_white(content: bytes, *, white: bool) -> Generator[None, None, bytes]:
    """A mask of the same size without transparency: white where `content` is fully transparent
    and black elsewhere, or the other way round.

    Yields now and then: other work can be done meanwhile. Raises FormatError for a file that is
    broken, is interlaced, has no alpha channel or no transparent pixel.
    """
    head, packed = _read(content)
    edited, kept = (b"\xff", b"\0") if white else (b"\0", b"\xff")
    colours = edited + kept * 255
    packer = zlib.compressobj()
    found: list[bytes] = []
    some = False
    at_once = min(max(_AT_ONCE // head.width, 1), _MOST_ROWS)
    for number, alpha in enumerate(_alphas(head, packed)):
        some = some or 0 in alpha
        found.append(packer.compress(_row(alpha.translate(colours))))
        if number % at_once == at_once - 1:
            yield
    if not some:
        raise FormatError("mask: expected transparent pixels where to edit; it has none")
    found.append(packer.flush())
    ihdr = struct.pack(">IIBBBBB", head.width, head.height, 8, _RGB, 0, 0, 0)
    chunks = ((b"IHDR", ihdr), (b"IDAT", b"".join(found)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _row(grey: bytes) -> bytes:
    """A row that is not filtered, of red, green and blue."""
    row = bytearray(1 + 3 * len(grey))
    row[1::3] = row[2::3] = row[3::3] = grey
    return bytes(row)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# ---- reading


class _Head(NamedTuple):
    width: int
    height: int
    pixel: int
    """Bytes of one."""
    depth: int
    """Bytes of one channel: 1 or 2."""


def _read(content: bytes) -> tuple[_Head, bytes]:
    """The head of a file, and its compressed rows."""
    head: _Head | None = None
    rows: list[bytes] = []
    for kind, data in _chunks(content):
        if kind == b"IHDR":
            head = _head(data)
        elif kind == b"IDAT":
            rows.append(data)
    if head is None:
        raise FormatError(_BROKEN)
    return head, b"".join(rows)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, kind, count = len(SIGNATURE), b"", 0
    while kind != b"IEND":
        count += 1
        if count > _MOST_CHUNKS:  # looked at in one go
            raise FormatError(f"mask: expected a PNG file of at most {_MOST_CHUNKS} chunks")
        size = int.from_bytes(content[at : at + 4], "big")
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        check = content[at + 8 + size : at + 12 + size]
        if int.from_bytes(check, "big") != zlib.crc32(data, zlib.crc32(kind)) or len(check) != 4:
            raise FormatError(_BROKEN)
        yield kind, data
        at += 12 + size


def _head(data: bytes) -> _Head:
    if len(data) != 13:
        raise FormatError(_BROKEN)
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", data)
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise FormatError(
            f"mask: expected at most {MAX_PIXELS} pixels and sides of at most {MAX_SIDE}, got "
            f"{width}x{height}"
        )
    if colours not in _CHANNELS or depth not in (8, 16):
        raise FormatError(
            "mask: expected a PNG file with an alpha channel (RGBA), whose transparent pixels say "
            "where to edit; this one has none"
        )
    if interlaced:
        raise FormatError("mask: expected a PNG file that is not interlaced")
    return _Head(width, height, _CHANNELS[colours] * depth // 8, depth // 8)


def _alphas(head: _Head, packed: bytes) -> Iterator[bytes]:
    """The alpha channel of each row, a byte each pixel, which is 0 where it is transparent."""
    filters = _Filters(head.width)
    planes = range(head.pixel - head.depth, head.pixel)
    above = [bytes(head.width)] * head.depth
    for row in _rows(head, packed):
        coded = [row[1 + plane :: head.pixel] for plane in planes]
        above = [filters.undone(row[0], *pair) for pair in zip(coded, above, strict=True)]
        yield above[0] if head.depth == 1 else _either(*above)


def _rows(head: _Head, packed: bytes) -> Iterator[bytes]:
    """Each row with the byte that says how it is filtered. Never unpacks more than there is to
    be."""
    unpacker = zlib.decompressobj()
    size = 1 + head.width * head.pixel
    count = max((_AT_ONCE * head.pixel) // size, 1)
    for start in range(0, head.height, count):
        wanted = size * min(count, head.height - start)
        try:
            data = unpacker.decompress(packed, wanted)
        except zlib.error:
            raise FormatError(_BROKEN) from None
        if len(data) != wanted:
            raise FormatError(_BROKEN)
        packed = unpacker.unconsumed_tail
        yield from (data[at : at + size] for at in range(0, wanted, size))


def _either(one: bytes, other: bytes) -> bytes:
    """What is not 0 in one of them."""
    both = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return both.to_bytes(len(one), "little")


class _Filters:
    """Undoes the filters of the rows of one channel, many bytes at once where that can be done:
    as numbers, whose bytes are added without a carry between them."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._nothing = bytes(width)
        self._low = int.from_bytes(b"\x7f" * width, "little")
        self._high = int.from_bytes(b"\x80" * width, "little")
        self._all = self._low | self._high

    def undone(self, kind: int, coded: bytes, above: bytes) -> bytes:
        """The bytes themselves; `above` are those of the row before."""
        if kind == 0:
            return coded
        if kind == 1:
            return self._left(coded)
        if kind == 2 or (kind == 4 and coded == self._nothing):
            return self._bytes(self._sum(self._number(coded), self._number(above)))
        if kind == 3:
            return _averaged(coded, above)
        if kind == 4:
            return _predicted(coded, above)
        raise FormatError(_BROKEN)

    def _left(self, coded: bytes) -> bytes:
        """Each byte with all before it: with the one before, then with two, four and so on."""
        value, shift = self._number(coded), 8
        while shift < 8 * self._width:
            value = self._sum(value, (value << shift) & self._all)
            shift *= 2
        return self._bytes(value)

    def _sum(self, one: int, other: int) -> int:
        return ((one & self._low) + (other & self._low)) ^ ((one ^ other) & self._high)

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little")

    def _bytes(self, value: int) -> bytes:
        return value.to_bytes(self._width, "little")


def _averaged(coded: bytes, above: bytes) -> bytes:
    left = 0
    row = bytearray()
    for value, up in zip(coded, above, strict=True):
        left = (value + (left + up >> 1)) & 0xFF
        row.append(left)
    return bytes(row)


def _predicted(coded: bytes, above: bytes) -> bytes:
    """Paeth's filter."""
    left = corner = 0
    row = bytearray()
    for value, up in zip(coded, above, strict=True):
        to_left, to_up, to_corner = (
            abs(up - corner),
            abs(left - corner),
            abs(left + up - 2 * corner),
        )
        if to_left <= to_up and to_left <= to_corner:
            near = left
        else:
            near = up if to_up <= to_corner else corner
        left, corner = (value + near) & 0xFF, up
        row.append(left)
    return bytes(row)
