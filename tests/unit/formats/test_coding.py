"""Compressed bodies are decoded piece by piece, and never more than is asked for."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice, pairwise

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.coding import (
    MAX_PIECE,
    CodingError,
    UnknownCoding,
    accepts,
    decoder,
)

Encode = Callable[[bytes], bytes]


def bare_deflate(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(text) + compressor.flush()


def br(text: bytes) -> bytes:
    return bytes(brotli.compress(text, quality=4))


CODINGS: list[tuple[str, Encode]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("br", br),
    ("gzip, br", lambda text: br(gzip.compress(text))),
    ("br, deflate, identity, GZIP", lambda text: gzip.compress(zlib.compress(br(text)))),
]
IDS = ["gzip", "x-gzip", "zlib", "bare deflate", "br", "gzip in br", "three"]
codings = pytest.mark.parametrize(("name", "encode"), CODINGS, ids=IDS)

TEXT = random.Random(1).randbytes(60) + b"data: {}\n\n" * 40


def decode(name: str, chunks: Iterable[bytes]) -> bytes:
    decoding = decoder(name)
    assert decoding is not None
    pieces = [piece for chunk in chunks for piece in decoding.feed(chunk)]
    pieces += decoding.end()
    assert all(0 < len(piece) <= MAX_PIECE for piece in pieces)
    return b"".join(pieces)


def cut(raw: bytes, at: Iterable[int]) -> list[bytes]:
    offsets = [0, *sorted({offset % (len(raw) + 1) for offset in at}), len(raw)]
    return [raw[a:b] for a, b in pairwise(offsets)]


@codings
def test_a_body_cut_in_two_anywhere_decodes_alike(name: str, encode: Encode) -> None:
    raw = encode(TEXT)
    for at in range(len(raw) + 1):
        assert decode(name, [raw[:at], raw[at:]]) == TEXT


@codings
def test_a_body_that_comes_byte_by_byte_decodes_alike(name: str, encode: Encode) -> None:
    raw = encode(TEXT)
    assert decode(name, (raw[at : at + 1] for at in range(len(raw)))) == TEXT


@given(
    st.sampled_from(CODINGS),
    st.binary(max_size=300),
    st.sampled_from([0, 1, 1000, 70_000]),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_any_body_cut_anywhere_decodes_alike(
    coding: tuple[str, Encode], start: bytes, repeats: int, at: list[int]
) -> None:
    name, encode = coding
    text = start + b"abc" * repeats
    assert decode(name, cut(encode(text), at)) == text


@pytest.mark.parametrize("size", [MAX_PIECE // 2, MAX_PIECE, 2 * MAX_PIECE, 2 * MAX_PIECE + 1])
@codings
def test_a_body_of_just_some_pieces_is_whole(name: str, encode: Encode, size: int) -> None:
    assert decode(name, [encode(b"x" * size)]) == b"x" * size


@pytest.mark.parametrize("name", ["gzip", "br"])
def test_each_flushed_event_of_a_compressed_stream_comes_with_its_chunk(name: str) -> None:
    deflate, brotlis = zlib.compressobj(wbits=zlib.MAX_WBITS | 16), brotli.Compressor()
    decoding = decoder(name)
    assert decoding is not None
    for number in range(5):
        event = b"data: %d\n\n" % number
        if name == "gzip":
            chunk = deflate.compress(event) + deflate.flush(zlib.Z_SYNC_FLUSH)
        else:
            chunk = brotlis.process(event) + brotlis.flush()
        assert b"".join(decoding.feed(chunk)) == event


@codings
def test_a_body_that_is_cut_short_is_an_error(name: str, encode: Encode) -> None:
    raw = encode(TEXT)
    for end in range(1, len(raw)):
        with pytest.raises(CodingError):
            decode(name, [raw[:end]])


@codings
def test_a_body_without_any_byte_is_whole(name: str, encode: Encode) -> None:
    assert decode(name, []) == b""
    assert decode(name, [b""]) == b""


@codings
def test_an_encoded_empty_body_is_empty(name: str, encode: Encode) -> None:
    assert decode(name, [encode(b"")]) == b""


@codings
def test_bytes_after_the_end_are_an_error(name: str, encode: Encode) -> None:
    raw = encode(TEXT)
    for chunks in ([raw + b"garbage"], [raw, b"garbage"], [raw, b"g"]):
        with pytest.raises(CodingError):
            decode(name, chunks)


@codings
def test_a_body_that_is_not_encoded_at_all_is_an_error(name: str, encode: Encode) -> None:
    for body in (b'{"id": "chatcmpl-1", "choices": []}', b"\xff" * 50):
        with pytest.raises(CodingError):
            decode(name, [body])


@pytest.mark.parametrize(
    ("name", "encode"), [CODINGS[0], CODINGS[2], CODINGS[5]], ids=["gzip", "zlib", "gzip in br"]
)
def test_an_altered_byte_is_never_taken_for_the_body(name: str, encode: Encode) -> None:
    raw = gzip.compress(TEXT, mtime=0) if name == "gzip" else encode(TEXT)
    for at in range(len(raw)):
        if name == "gzip" and 3 <= at < 10:  # flags, time and system, which no checksum covers
            continue
        altered = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]
        try:
            assert decode(name, [altered]) == TEXT
        except CodingError:
            continue


def test_an_error_comes_again_when_asked_again() -> None:
    decoding = decoder("br")
    assert decoding is not None
    for _ in range(2):
        with pytest.raises(CodingError):
            list(decoding.feed(b"\xff" * 20))
    with pytest.raises(CodingError):
        list(decoding.end())


def test_several_gzip_members_are_one_body() -> None:
    raw = gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b")
    for at in range(len(raw) + 1):
        assert decode("gzip", [raw[:at], raw[at:]]) == b"ab"


def test_zeros_after_a_gzip_member_are_padding() -> None:
    raw = gzip.compress(b"a") + b"\0" * 9
    for at in range(len(raw) + 1):
        assert decode("gzip", [raw[:at], raw[at:]]) == b"a"


def test_zeros_before_the_first_gzip_member_are_an_error() -> None:
    with pytest.raises(CodingError, match="instead of a gzip header"):
        decode("gzip", [b"\0" + gzip.compress(b"a")])


@cache
def gzip_bomb() -> bytes:
    """A gigabyte of zeros. One block again and again, without the end, which nobody reaches."""
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    head = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return head + block * 1023


@cache
def br_bomb() -> bytes:
    """A gigabyte of zeros."""
    compressor = brotli.Compressor(quality=1)
    zeros = bytes(1 << 24)
    return b"".join([*(compressor.process(zeros) for _ in range(64)), compressor.finish()])


def lazily(name: str, bomb: bytes, pieces: int) -> tuple[int, int]:
    """Bytes that the first pieces bring, and the memory that it took at most."""
    decoding = decoder(name)
    assert decoding is not None
    tracemalloc.start()
    try:
        size = sum(map(len, islice(decoding.feed(bomb), pieces)))
        return size, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("gzip", gzip_bomb),
        ("br", br_bomb),
        ("gzip, gzip", lambda: gzip.compress(gzip_bomb())),
        ("gzip, br", lambda: br(gzip_bomb())),
    ],
    ids=["gzip", "br", "gzip twice", "gzip in br"],
)
def test_a_bomb_gives_a_gigabyte_only_to_who_asks_for_it(
    name: str, bomb: Callable[[], bytes]
) -> None:
    size, memory = lazily(name, bomb(), pieces=100)
    assert 0 < size <= 100 * MAX_PIECE
    assert memory < 1_000_000


def test_a_bomb_that_is_read_on_takes_no_more_memory() -> None:
    size, memory = lazily("gzip", gzip_bomb(), pieces=2000)
    assert size > 100 << 20
    assert memory < 1_000_000


def test_what_is_left_of_one_iterator_comes_first_out_of_the_next() -> None:
    raw = gzip.compress(b"x" * (MAX_PIECE * 3) + b"end")
    decoding = decoder("gzip")
    assert decoding is not None
    first: Iterator[bytes] = decoding.feed(raw[:-4])
    pieces = [next(first), *decoding.feed(raw[-4:]), *decoding.end()]
    assert b"".join(pieces) == b"x" * (MAX_PIECE * 3) + b"end"


@pytest.mark.parametrize("name", [None, "", "identity", " Identity ", "identity, identity", ","])
def test_identity_needs_no_decoder(name: str | None) -> None:
    assert decoder(name) is None


@pytest.mark.parametrize("name", ["zstd", "compress", "gzip, zstd", "gzip;q=1", "aws-chunked"])
def test_a_coding_that_is_not_known_is_named(name: str) -> None:
    with pytest.raises(UnknownCoding, match="expected gzip, deflate or br, got"):
        decoder(name)


def test_more_codings_than_anybody_sends_are_refused() -> None:
    assert decoder("gzip, gzip, gzip, gzip") is not None
    with pytest.raises(UnknownCoding, match="at most 4 codings"):
        decoder("gzip, gzip, gzip, gzip, gzip")


@pytest.mark.parametrize(
    ("field", "coding", "expected"),
    [
        ("gzip", "gzip", True),
        ("GZip, deflate", "gzip", True),
        ("x-gzip", "gzip", True),
        ("gzip", "X-GZIP", True),
        ("gzip;q=0.5", "gzip", True),
        ("gzip ; q=0.001", "gzip", True),
        ("gzip;Q=1.000", "gzip", True),
        ("gzip;q=0", "gzip", False),
        ("gzip;q=0.000, *", "gzip", False),
        ("*", "br", True),
        ("*;q=0", "br", False),
        ("br, *;q=0", "br", True),
        ("deflate", "gzip", False),
        ("gzipped", "gzip", False),
        ("", "gzip", False),
        (" , ,", "gzip", False),
        (None, "gzip", False),
        ("gzip;q=2", "gzip", False),
        ("gzip;q=nan", "gzip", False),
        ("gzip;level=9", "gzip", False),
        ("gzip;q=1;q=0", "gzip", False),
        (None, "identity", True),
        ("", "identity", True),
        ("gzip", "identity", True),
        ("identity;q=0", "identity", False),
        ("*;q=0", "identity", False),
        ("identity, *;q=0", "identity", True),
        ("gzip, *", "identity", True),
    ],
)
def test_what_a_client_accepts(field: str | None, coding: str, expected: bool) -> None:
    assert accepts(field, coding) is expected
