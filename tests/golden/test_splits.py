"""However the network cuts a provider's stream, the client gets the same bytes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import exchanges, fixture
from tests.golden.exchanges import Exchanges

STREAMS = [golden.name for golden in fixture.fixtures() if golden.is_stream]

EXCHANGES = [exchanges.load(name) for name in exchanges.names()]

COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "deflate": zlib.compress,
}


def halves(data: bytes) -> Iterator[list[bytes]]:
    """`data` split in two at every byte."""
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` cut at these places, and nothing of it left out."""
    ordered = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[i:j] for i, j in pairwise(ordered)]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_be_split_at_every_byte(name: str) -> None:
    """A Head begins the answer anew, so that one attempt can take all the splits."""
    golden = fixture.load(name)
    whole, head = golden.play().body, golden.head()
    attempt, _ = golden.attempt()
    for chunks in halves(golden.answered):
        played = fixture.play(attempt, head, chunks)
        assert played.body == whole, f"split at byte {len(chunks[0])}"


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_come_byte_by_byte(name: str) -> None:
    golden = fixture.load(name)
    data = golden.answered
    played = golden.play([data[at : at + 1] for at in range(len(data))])
    assert played.body == golden.play().body
    assert played.is_clean


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 2**16), max_size=12))
def test_a_stream_may_come_in_any_pieces(name: str, places: list[int]) -> None:
    golden = fixture.load(name)
    assert golden.play(cut(golden.answered, places)).body == golden.play().body


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_be_compressed(name: str) -> None:
    golden = fixture.load(name)
    whole = golden.play().body
    for encoding, compress in COMPRESS.items():
        chunks = _pieces(compress(golden.answered), 7)
        played = golden.play(chunks, **{"content-encoding": encoding})
        assert played.body == whole
        assert played.head.header("content-encoding") is None
        assert played.is_clean


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(STREAMS),
    st.sampled_from(sorted(COMPRESS)),
    st.lists(st.integers(0, 2**16), max_size=6),
)
def test_a_compressed_stream_may_come_in_any_pieces(
    name: str, encoding: str, places: list[int]
) -> None:
    golden = fixture.load(name)
    raw = COMPRESS[encoding](golden.answered)
    played = golden.play(cut(raw, places), **{"content-encoding": encoding})
    assert played.body == golden.play().body


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize(
    "name",
    ["anthropic/responses", "cohere/tools", "gemini/embeddings", "openai/chat", "vertex/chat"],
)
def test_an_answer_in_one_piece_may_be_compressed(name: str, encoding: str) -> None:
    golden = fixture.load(name)
    chunks = _pieces(COMPRESS[encoding](golden.answered), 5)
    played = golden.play(chunks, **{"content-encoding": encoding})
    assert played.body == golden.play().body
    assert played.head.header("content-encoding") is None


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("golden", EXCHANGES, ids=lambda golden: golden.name)
def test_uploads_and_answers_may_come_in_small_pieces(golden: Exchanges, size: int) -> None:
    whole, played = exchanges.play(golden), exchanges.play(golden, size)
    assert (played.status, played.body) == (whole.status, whole.body)
    assert [body for _, body in played.asked] == [body for _, body in whole.asked]


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
