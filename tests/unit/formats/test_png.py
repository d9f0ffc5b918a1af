"""Masks with transparency become black and white ones, whatever filters their rows have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats import png
from kong_ai_proxy.formats.errors import FormatError

Row = list[bytes]  # a pixel each


def file(
    rows: list[Row],
    filters: tuple[int, ...] = (0,),
    colours: int = 6,
    depth: int = 8,
    interlaced: int = 0,
) -> bytes:
    """A PNG file, filtered as section 9 of the specification says, a byte at a time."""
    data, above = b"", b""
    for kind, pixels in zip(cycle(filters), rows, strict=False):
        row = b"".join(pixels)
        above = above or bytes(len(row))
        data += bytes([kind]) + filtered(kind, row, above, len(pixels[0]))
        above = row
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), depth, colours, 0, 0, interlaced)
    packed = zlib.compress(data)
    half = len(packed) // 2
    parts = [(b"IHDR", head), (b"gAMA", b"\0\0\xb1\x8f"), (b"IDAT", packed[:half])]
    return assembled([*parts, (b"IDAT", packed[half:]), (b"IEND", b"")])


def assembled(parts: list[tuple[bytes, bytes]]) -> bytes:
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return png.SIGNATURE + b"".join(chunks)


def filtered(kind: int, row: bytes, above: bytes, pixel: int) -> bytes:
    found = bytearray()
    for at, value in enumerate(row):
        left = row[at - pixel] if at >= pixel else 0
        corner = above[at - pixel] if at >= pixel else 0
        up = above[at]
        predicted = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
        found.append((value - predicted) % 256)
    return bytes(found)


def test_a_file_of_very_many_chunks_is_refused() -> None:
    head = struct.pack(">IIBBBBB", 1, 1, 8, 6, 0, 0, 0)
    many = assembled([(b"IHDR", head), *[(b"teXt", b"")] * 20_000, (b"IEND", b"")])
    with pytest.raises(FormatError, match="mask: expected a PNG file of at most 16384 chunks"):
        list(png.black_and_white(many, white=True))


def paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))


def unmasked(content: bytes) -> list[bytes]:
    """The rows of what is made of a mask, each pixel of three bytes, checked to be black or
    white."""
    width, height = struct.unpack_from(">II", content, 16)
    assert content[24:29] == bytes([8, 2, 0, 0, 0])
    size = int.from_bytes(content[33:37], "big")
    data = zlib.decompress(content[41 : 41 + size])
    assert len(data) == height * (1 + 3 * width)
    rows = [data[at + 1 : at + 1 + 3 * width] for at in range(0, len(data), 1 + 3 * width)]
    assert all(row[at] == row[at + 1] == row[at + 2] for row in rows for at in range(0, width, 3))
    return [row[::3] for row in rows]


def made(content: bytes, *, white: bool = False) -> list[bytes]:
    steps = png.black_and_white(content, white=white)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return unmasked(end.value)


CLEAR, HALF, FULL = b"\1\2\3\0", b"\4\5\6\x80", b"\7\x08\x09\xff"


def test_black_where_it_is_transparent() -> None:
    rows = [[CLEAR, HALF, FULL], [FULL, CLEAR, CLEAR]]
    assert made(file(rows)) == [b"\0\xff\xff", b"\xff\0\0"]
    assert made(file(rows), white=True) == [b"\xff\0\0", b"\0\xff\xff"]


pixels = st.one_of(st.sampled_from([CLEAR, HALF, FULL]), st.binary(min_size=4, max_size=4))


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_every_filter_is_undone(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 40))
    rows = data.draw(
        st.lists(st.lists(pixels, min_size=width, max_size=width), min_size=1, max_size=6)
    )
    rows[0][0] = CLEAR
    filters = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)))
    expected = [bytes(0 if pixel[3] == 0 else 255 for pixel in row) for row in rows]
    assert made(file(rows, filters)) == expected


@pytest.mark.parametrize("filters", [(kind,) for kind in range(5)])
def test_sixteen_bits_and_grey(filters: tuple[int, ...]) -> None:
    grey = [[b"\1\0", b"\1\1", b"\1\0"]] * 3
    assert made(file(grey, filters, colours=4)) == [b"\0\xff\0"] * 3
    deep = [[bytes(6) + b"\0\0", bytes(6) + b"\0\1", bytes(6) + b"\1\0"]] * 3
    assert made(file(deep, filters, depth=16)) == [b"\0\xff\xff"] * 3


def broken(change: Callable[[bytes], bytes]) -> bytes:
    return change(file([[CLEAR, FULL]]))


RAW = zlib.compress(b"\0" + CLEAR + FULL)
HEAD = struct.pack(">IIBBBBB", 2, 1, 8, 6, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "this one is broken"),
        (png.SIGNATURE, "this one is broken"),
        (broken(lambda data: data[:-1]), "this one is broken"),
        (broken(lambda data: data[:-12]), "this one is broken"),
        (broken(lambda data: data[:-1] + b"\0"), "this one is broken"),  # only the check is wrong
        (broken(lambda data: data.replace(b"IHDR", b"IHDX")), "this one is broken"),
        (assembled([(b"IHDR", HEAD[:-1]), (b"IDAT", RAW), (b"IEND", b"")]), "this one is broken"),
        (assembled([(b"IHDR", HEAD), (b"IEND", b"")]), "this one is broken"),
        (assembled([(b"IDAT", RAW), (b"IEND", b"")]), "this one is broken"),
        (assembled([(b"IHDR", HEAD), (b"IDAT", b"x"), (b"IEND", b"")]), "this one is broken"),
        (assembled([(b"IHDR", HEAD), (b"IDAT", RAW[:-9]), (b"IEND", b"")]), "this one is broken"),
        (
            assembled([(b"IHDR", HEAD), (b"IDAT", zlib.compress(b"\5" * 9)), (b"IEND", b"")]),
            "this one is broken",
        ),
        (file([[b"\0\0\0"]], colours=2), "with an alpha channel (RGBA)"),
        (file([[b"\0"]], colours=3), "with an alpha channel (RGBA)"),
        (file([[CLEAR]], interlaced=1), "that is not interlaced"),
        (file([[FULL, HALF]]), "transparent pixels where to edit; it has none"),
        (
            assembled([(b"IHDR", struct.pack(">IIBBBBB", 1 << 31, 2, 8, 6, 0, 0, 0))]),
            "at most 8294400 pixels",
        ),
        (assembled([(b"IHDR", struct.pack(">IIBBBBB", 0, 2, 8, 6, 0, 0, 0))]), "at most 8294400"),
        (assembled([(b"IHDR", struct.pack(">IIBBBBB", 1, 4097, 8, 6, 0, 0, 0))]), "most 4096, got"),
    ],
)
def test_other_files_are_refused(content: bytes, text: str) -> None:
    with pytest.raises(FormatError) as caught:
        made(content)
    assert text in str(caught.value)


def test_other_work_is_done_while_a_large_mask_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_AT_ONCE", 20)
    rests = list(png.black_and_white(file([[CLEAR, FULL]] * 35, (4,)), white=True))
    assert len(rests) == 3


def test_the_size_of_a_file() -> None:
    assert png.size_of(file([[CLEAR, FULL, FULL]] * 2)) == (3, 2)
    assert [png.size_of(each) for each in (b"", png.SIGNATURE, b"x" * 30)] == [None] * 3
