"""Chosen members are read out of a JSON object that comes in any pieces."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.json_members import MemberReader

Json = dict[str, Any]

NAMES = ("usage", "model", "error")
CHAT = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": 'g"p}t\\',
        "choices": [
            {"message": {"content": 'said "hé\\" {', "tool_calls": [[], {}]}, "logprobs": None},
            {"message": {"content": "x" * 80 + "\\"}, "index": -1.5e3},
        ],
        "usage": {"total_tokens": 17, "details": {"cached": [0, "}"]}},
        "error": None,
    },
    indent=1,
).encode()

keys = st.sampled_from([*NAMES, "other", "mod", "usage2"]) | st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(keys, values, max_size=6)
layouts = st.sampled_from([{}, {"indent": 1}, {"indent": "\t"}, {"separators": (" ,\r\n", " : ")}])


def read(chunks: Iterable[bytes], max_value: int = 64 << 10) -> MemberReader:
    reader = MemberReader(NAMES, max_value)
    for chunk in chunks:
        reader.feed(chunk)
    return reader


def found(reader: MemberReader) -> tuple[dict[str, object], bool, bool]:
    return reader.members, reader.complete, reader.broken


def sized(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def cut(raw: bytes, at: Iterable[int]) -> list[bytes]:
    offsets = [0, *sorted({offset % (len(raw) + 1) for offset in at}), len(raw)]
    return [raw[a:b] for a, b in pairwise(offsets)]


def wanted(value: Json) -> Json:
    return {name: value[name] for name in NAMES if name in value}


def test_an_answer_cut_in_two_anywhere_gives_its_members() -> None:
    whole = found(read([CHAT]))
    assert whole == (wanted(json.loads(CHAT)), True, False)
    for at in range(len(CHAT) + 1):
        assert found(read([CHAT[:at], CHAT[at:]])) == whole


def test_an_answer_that_comes_byte_by_byte_gives_its_members() -> None:
    assert found(read(sized(CHAT, 1))) == found(read([CHAT]))


@given(objects, layouts, st.booleans(), st.lists(st.integers(0, 2000), max_size=8))
def test_any_object_cut_anywhere_gives_what_a_parser_gives(
    value: Json, layout: Json, ascii_only: bool, at: list[int]
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, **layout).encode()
    assert found(read(cut(raw, at))) == (wanted(value), True, False)


@given(st.binary(max_size=60) | st.text('{}[]":,\\ etrun1', max_size=40).map(str.encode))
def test_any_bytes_are_read_alike_however_they_are_cut(raw: bytes) -> None:
    whole = found(read([raw]))
    for at in range(len(raw) + 1):
        assert found(read([raw[:at], raw[at:]])) == whole


@pytest.mark.parametrize(
    "value",
    [
        b"[" + b'"",' * 5000 + b"0]",
        b"[" + b"[]," * 5000 + b"0]",
        b"[" + b'{"a":[{"b":[[{}]]}]},' * 3000 + b"0]",
        b"[" * 900 + b'"' + b'\\"' * 5000 + b'"' + b"]" * 900,
        b'"' + b'\\"' * 5000 + b"\\\\" * 501 + b'"',
        b'["' + b"\\\\" * 3001 + b'\\"]","]"]',
        b"[" + b'"a",' * 2500 + b"[" * 50 + b'"]"' + b"]" * 50 + b"]",
        b"[" + b"-0.01234567," * 3000 + b'"]",{}]',
        b"[1," + b" " * 40_000 + b'["]"]]',
        b'{"' + b"k" * 100 + b'":"' + b"}" * 40_000 + b'"}',
    ],
    ids=[
        *("strings", "arrays", "nested", "deep", "escapes", "backslashes", "late depth"),
        *("numbers", "space", "long strings"),
    ],
)
@pytest.mark.parametrize("size", [7, 1400, 1 << 20])
def test_a_value_of_any_shape_is_passed_over(value: bytes, size: int) -> None:
    raw = b'{"other":' + value + b',"model":"a"}'
    assert json.loads(raw)["model"] == "a"
    assert found(read(sized(raw, size), max_value=100)) == ({"model": "a"}, True, False)


def test_a_name_counts_at_the_top_level_only() -> None:
    raw = b'{"data":{"model":"b"},"list":[{"usage":1}],"model":"a"}'
    assert read([raw[:9], raw[9:]]).members == {"model": "a"}


def test_a_name_may_be_written_with_escapes() -> None:
    raw = rb'{"mod\u0065l":"a","\u0075\u0073\u0061\u0067\u0065":1}'
    for size in (1, 5, 100):
        assert read(sized(raw, size)).members == {"model": "a", "usage": 1}


def test_of_two_members_of_one_name_the_last_counts() -> None:
    raw = b'{"model":"a","usage":1,"model":"b"}'
    for size in (1, 20, 100):
        assert read(sized(raw, size)).members == {"model": "b", "usage": 1}


def test_members_are_there_before_the_end() -> None:
    reader = read([b'{"model":"a","data":["'])
    assert found(reader) == ({"model": "a"}, False, False)


def test_a_number_is_complete_only_with_what_follows() -> None:
    reader = read([b'{"usage":12'])
    assert reader.members == {}
    reader.feed(b"3}")
    assert found(reader) == ({"usage": 123}, True, False)


@pytest.mark.parametrize("size", [3, 50, 1000])
def test_a_member_that_is_too_long_is_left_out(size: int) -> None:
    raw = b'{"error":"' + b"x" * 99 + b'","usage":"' + b"y" * 98 + b'","model":"a"}'
    reader = read(sized(raw, size), max_value=100)
    assert found(reader) == ({"usage": "y" * 98, "model": "a"}, True, False)


def test_a_long_value_takes_away_an_earlier_one_of_its_name() -> None:
    raw = b'{"error":"a","error":"' + b"x" * 99 + b'"}'
    assert read([raw], max_value=100).members == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"hello",
        b"[1]",
        b'"text"',
        b"null",
        b"<html>",
        b"data: {}\n\n",
        b"{,}",
        b"{1:2}",
        b'{"a" 1}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b'{"a":"b"c}',
        b'{"a":[]]}',
        b'{"model":tru}',
        b'{"model":"\xff"}',
        b'{"usage":[1,}]}',
        b'{"a":1} x',
        b'{"a":1}{}',
        b'{\\"a":1}',
        b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_what_is_not_a_json_object_is_broken(raw: bytes) -> None:
    for size in (1, 4, 10_000):
        assert read(sized(raw, size)).broken


def test_members_before_the_break_stay_and_none_come_after_it() -> None:
    reader = read([b'{"model":"a",}', b'{"usage":1}'])
    assert found(reader) == ({"model": "a"}, False, True)


@pytest.mark.parametrize("raw", [b"", b" \n", b'{"model"', b'{"a":"b', b'{"a":[1', b'{"a":1,'])
def test_a_beginning_is_neither_complete_nor_broken(raw: bytes) -> None:
    assert found(read([raw])) == ({}, False, False)


@pytest.mark.parametrize("raw", [b"{}", b" {} \n", b"\r\n\t{ }"])
def test_an_empty_object_is_complete(raw: bytes) -> None:
    for size in (1, 100):
        assert found(read(sized(raw, size))) == ({}, True, False)


@pytest.mark.parametrize("size", [16 << 10, 64 << 10, 4 << 20])
def test_an_image_in_base64_is_passed_over(size: int) -> None:
    image = base64.b64encode(bytes(range(256)) * 9000)
    raw = b'{"created":1,"data":[{"b64_json":"' + image + b'"}],"usage":{"total_tokens":9}}'
    assert found(read(sized(raw, size))) == ({"usage": {"total_tokens": 9}}, True, False)


@pytest.mark.parametrize(
    "part",
    [b"x" * 9999, b'\\"' * 5000, b'","', b'":{"a":[[{}]],"b":"', b'","' + b"k" * 5000 + b'":"'],
    ids=["text", "escapes", "names", "containers", "long names"],
)
@pytest.mark.parametrize("begin", [b'{"usage":["', b'{"other":["', b'{"a":"b","'])
def test_memory_does_not_grow_with_the_object(begin: bytes, part: bytes) -> None:
    tracemalloc.start()
    try:
        reader = read([begin])
        for _ in range(300):
            reader.feed(part)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
