"""Pictures drawn with zlib alone (PNG specification, third edition, sections 5, 9, 10 and 11)."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY: Final = (128, 128, 128)


def picture(
    width: int, height: int, about: str, *, transparent: bool = False, drawn: float = 1.0
) -> bytes:
    """A disc before a gradient, in colours that depend on the text, as a PNG file.

    `transparent` leaves the gradient out; `drawn` is how much of it is there, from the top.
    """
    head = struct.pack(">IIBBBBB", width, height, 8, 6 if transparent else 2, 0, 0, 0)
    packer = zlib.compressobj(1)
    rows = _rows(width, height, about, transparent, drawn)
    data = b"".join(packer.compress(row) for row in rows) + packer.flush()
    return SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def _rows(width: int, height: int, about: str, transparent: bool, drawn: float) -> Iterator[bytes]:
    """Each row: the byte that says it is not filtered, then its pixels."""
    colours = hashlib.blake2b(about.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    top, bottom, disc = (bytes(colours[at : at + 3]) for at in (0, 3, 6))
    opaque = b"\xff" if transparent else b""
    radius = min(width, height) / 3
    for y in range(height):
        if y >= height * drawn:
            yield b"\0" + (bytes(_GREY) + opaque) * width
            continue
        part = y / height
        mixed = bytes(round(a + (b - a) * part) for a, b in zip(top, bottom, strict=True))
        around = b"\0\0\0\0" if transparent else mixed
        half = math.sqrt(max(0.0, radius**2 - (y - height / 2) ** 2))
        inside = min(width, round(half) * 2)
        left = (width - inside) // 2
        right = width - inside - left
        yield b"\0" + around * left + (disc + opaque) * inside + around * right


def size_of(head: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file that begins with `head`, of 24 bytes at least."""
    if not head.startswith(SIGNATURE) or head[12:16] != b"IHDR" or len(head) < 24:
        return None
    width, height = struct.unpack(">II", head[16:24])
    return (width, height) if width and height else None
