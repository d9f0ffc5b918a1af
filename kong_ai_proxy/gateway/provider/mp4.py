"""Films without an encoder: PNG pictures in an MP4 file, one a second.

Boxes as in ISO/IEC 14496-12; the sample entry `png ` is QuickTime's, which players read too.
"""

from __future__ import annotations

import struct
from typing import Final

_TIMESCALE: Final = 1000  # units a second
_MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def film(width: int, height: int, pictures: list[bytes]) -> bytes:
    """The pictures, PNG files of that size, one after the other."""
    head = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isommp42")
    # Where the first picture begins depends on the size of what says so.
    place = len(head) + len(_movie(width, height, pictures, 0)) + 8
    body = b"".join(pictures)
    return head + _movie(width, height, pictures, place) + _box(b"mdat", body)


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """A box with a version, 0, and flags."""
    return _box(kind, struct.pack(">I", flags), *parts)


def _movie(width: int, height: int, pictures: list[bytes], place: int) -> bytes:
    length = len(pictures) * _TIMESCALE
    times = struct.pack(">4I", 0, 0, _TIMESCALE, length)  # created, changed, timescale, length
    movie = _full(
        b"mvhd",
        times + struct.pack(">IH10x", 0x10000, 0x100) + _MATRIX + bytes(24) + struct.pack(">I", 2),
    )
    track = _full(
        b"tkhd",
        struct.pack(">5I8x", 0, 0, 1, 0, length) + struct.pack(">4h", 0, 0, 0, 0) + _MATRIX,
        struct.pack(">II", width << 16, height << 16),
        flags=3,  # enabled, and part of the presentation
    )
    return _box(b"moov", movie, _box(b"trak", track, _media(width, height, pictures, place, times)))


def _media(width: int, height: int, pictures: list[bytes], place: int, times: bytes) -> bytes:
    head = _full(b"mdhd", times + struct.pack(">HH", 0x55C4, 0))  # language: undetermined
    handler = _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide") + b"stand-in\0")
    here = _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1))  # in this very file
    info = _box(
        b"minf",
        _full(b"vmhd", bytes(8), flags=1),
        _box(b"dinf", here),
        _samples(width, height, pictures, place),
    )
    return _box(b"mdia", head, handler, info)


def _samples(width: int, height: int, pictures: list[bytes], place: int) -> bytes:
    entry = struct.pack(">6xH16xHHIII", 1, width, height, 0x480000, 0x480000, 0)
    entry += struct.pack(">H32sHh", 1, b"\x03PNG", 24, -1)
    count = len(pictures)
    sizes = struct.pack(f">{count}I", *map(len, pictures))
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), _box(b"png ", entry)),
        _full(b"stts", struct.pack(">3I", 1, count, _TIMESCALE)),
        _full(b"stsc", struct.pack(">4I", 1, 1, count, 1)),  # all of them in one chunk
        _full(b"stsz", struct.pack(">II", 0, count), sizes),
        _full(b"stco", struct.pack(">II", 1, place)),
    )
