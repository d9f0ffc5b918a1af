"""The elements of a JSON array that comes in pieces."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats.json_array import JsonArrayError, JsonArrayReader

ARRAY = (
    b'\xef\xbb\xbf [{"a": [1, {"b": "x]},{\\"\\\\"}], "c": {}} ,\r\n{"d": "\\u00e9\xc3\xa9\\\\"},'
    b'\n"te,x[t", 12 ,null,[[],[{}]], {"deep": [[[[{"x": "}"}]]]]}\n]\n'
)
VALUES = json.loads(ARRAY.decode("utf-8-sig"))


def read(*chunks: bytes, max_element: int = 1 << 20) -> list[object]:
    reader = JsonArrayReader(max_element)
    found = [json.loads(element) for chunk in chunks for element in reader.feed(chunk)]
    reader.end()
    return found


@pytest.mark.parametrize("at", range(len(ARRAY) + 1))
def test_the_elements_are_the_same_wherever_the_array_is_cut(at: int) -> None:
    assert read(ARRAY[:at], ARRAY[at:]) == VALUES


def test_an_array_that_comes_byte_by_byte() -> None:
    assert read(*(ARRAY[at : at + 1] for at in range(len(ARRAY)))) == VALUES


def test_an_element_comes_as_soon_as_its_last_bracket_has() -> None:
    reader = JsonArrayReader()
    assert reader.feed(b'[{"a": ') == []
    assert reader.feed(b"1}") == [b'{"a": 1}']
    assert reader.feed(b',\r\n{"b": 2}\n') == [b'{"b": 2}']
    assert reader.feed(b', {"c": 3}, {"d"') == [b'{"c": 3}']
    assert reader.feed(b": 4}]") == [b'{"d": 4}']
    reader.end()


@pytest.mark.parametrize("array", [b"[]", b" [ ] \n"])
def test_an_empty_array_has_no_elements(array: bytes) -> None:
    assert read(array) == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (b'{"a": 1}', "expected a JSON array"),
        (b"<html>", "expected a JSON array"),
        (b"[1,,2]", "expected an element"),
        (b"[{} {}]", "expected a comma"),
        (b"[1] x", "bytes after the end"),
        (b"[}", "closed that was not opened"),
        (b'[{"a": 1}', "ends too soon"),
        (b'[{"a": "', "ends too soon"),
        (b"[1,", "ends too soon"),
        (b"", "ends too soon"),
    ],
)
def test_what_is_no_array_is_an_error_that_says_why(array: bytes, message: str) -> None:
    with pytest.raises(JsonArrayError, match=message):
        read(array)


def test_elements_before_a_fault_are_given_first() -> None:
    reader = JsonArrayReader()
    assert reader.feed(b"[1] x") == [b"1"]
    for _ in range(2):
        with pytest.raises(JsonArrayError, match="after the end"):
            reader.feed(b" ")


@pytest.mark.parametrize("cut", [5, 60, 100])
def test_an_element_that_is_too_long_is_an_error(cut: int) -> None:
    array = b'["' + b"x" * 100 + b'"]'
    with pytest.raises(JsonArrayError, match="longer than 64 bytes"):
        read(array[:cut], array[cut:], max_element=64)


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
ELEMENTS: st.SearchStrategy[object] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ELEMENTS, max_size=5), st.booleans(), st.sampled_from([None, 2]), st.data())
def test_any_values_in_any_pieces_come_back(
    values: list[object], ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    raw = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    )
    places = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    chunks = [raw[i:j] for i, j in zip([0, *places], [*places, len(raw)], strict=True)]
    assert read(*chunks) == values


def test_the_work_for_a_byte_does_not_grow_with_the_element() -> None:
    def seconds(length: int) -> float:
        array = b'[{"data": "' + b"A" * length + b'"}]'
        reader = JsonArrayReader(1 << 26)
        start = time.process_time()
        for at in range(0, len(array), 1024):
            reader.feed(array[at : at + 1024])
        return time.process_time() - start

    short = min(seconds(1 << 20) for _ in range(3))
    assert min(seconds(1 << 23) for _ in range(3)) < 24 * short
