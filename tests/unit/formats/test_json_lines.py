"""Newline-delimited JSON: lines out of chunks, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.json_lines import JsonLinesError, JsonLinesReader
from tests.unit.formats.strategies import cuts, halves

STREAM = b'{"a":1}\r\n\n  \n{"b":"\xc3\xa9"}\n{"c":3}'
LINES = [b'{"a":1}\r', b'{"b":"\xc3\xa9"}', b'{"c":3}']


def read(chunks: list[bytes], max_line: int = 1 << 20) -> list[bytes]:
    reader = JsonLinesReader(max_line)
    found = [line for chunk in chunks for line in reader.feed(chunk)]
    return found + reader.end()


def test_split_at_every_byte_gives_the_same_lines() -> None:
    for chunks in halves(STREAM):
        assert read(chunks) == LINES


def test_single_bytes_give_the_same_lines() -> None:
    assert read([bytes([byte]) for byte in STREAM]) == LINES


@given(st.data())
def test_random_chunks_give_the_same_lines(data: st.DataObject) -> None:
    assert read(data.draw(cuts(STREAM))) == LINES


def test_a_line_without_its_end_counts_at_the_end_of_the_stream() -> None:
    reader = JsonLinesReader()
    assert reader.feed(b'{"a":1}') == []
    assert reader.end() == [b'{"a":1}']


def test_nothing_is_left_after_a_whole_line() -> None:
    assert read([b'{"a":1}\n']) == [b'{"a":1}']
    assert read([]) == []


def test_lines_before_a_long_one_come_first_and_then_the_error_stays() -> None:
    reader = JsonLinesReader(max_line=4)
    assert reader.feed(b"1234\n12345\n1\n") == [b"1234"]
    for _ in range(2):
        with pytest.raises(JsonLinesError, match="longer than 4 bytes"):
            reader.feed(b"1\n")
    with pytest.raises(JsonLinesError):
        reader.end()


def test_an_endless_line_is_not_held() -> None:
    reader = JsonLinesReader(max_line=1000)
    for _ in range(1000):
        assert reader.feed(b"x") == []
    with pytest.raises(JsonLinesError):
        reader.feed(b"x")
    assert reader._held == []


def test_a_line_of_the_largest_size_is_read_however_it_is_cut() -> None:
    for chunks in halves(b"x" * 100 + b"\n"):
        assert read(chunks, max_line=100) == [b"x" * 100]
