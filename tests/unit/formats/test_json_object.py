"""A JSON body is checked whole and changed only where it must be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.json_object import REMOVED, JsonError, JsonObject

Json = dict[str, Any]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=6)
layouts = st.sampled_from([{}, {"indent": 1}, {"indent": "\t"}, {"separators": (" ,\r\n", " : ")}])


@given(objects, layouts, st.booleans())
def test_no_change_gives_the_very_bytes(value: Json, layout: Json, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, **layout).encode()
    assert JsonObject(raw).edited({}) is raw


@given(objects, objects, layouts)
def test_an_edit_is_what_updating_the_object_would_be(
    value: Json, changes: Json, layout: Json
) -> None:
    edited = JsonObject(json.dumps(value, **layout).encode()).edited(changes)
    assert json.loads(edited) == {**value, **changes}


@given(objects, st.data(), layouts)
def test_removed_members_are_gone_and_the_rest_stays(
    value: Json, data: st.DataObject, layout: Json
) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else set()
    edited = JsonObject(json.dumps(value, **layout).encode()).edited(dict.fromkeys(gone, REMOVED))
    assert json.loads(edited) == {k: v for k, v in value.items() if k not in gone}


def test_what_is_not_changed_keeps_its_own_spelling() -> None:
    raw = b'{ "n": 1.10, "big": 123456789012345678901234567890, "e": "\\u00e9\\/", "model": "a" }'
    edited = JsonObject(raw).edited({"model": "b"})
    assert edited == (
        b'{"n": 1.10,"big": 123456789012345678901234567890,"e": "\\u00e9\\/","model":"b"}'
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"hello", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"[1]", "expected a JSON object, got an array"),
        (b'"text"', "expected a JSON object, got a string"),
        (b"null", "expected a JSON object, got null"),
        (b"true", "expected a JSON object, got a boolean"),
        (b"7", "expected a JSON object, got a number"),
        (b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", "not valid JSON"),
        (b'{"model":"a","model":"b"}', "the member 'model' occurs twice"),
        (b'{"model":"a","mod\\u0065l":"b"}', "the member 'model' occurs twice"),
    ],
)
def test_a_body_that_is_not_one_unambiguous_object_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(JsonError, match=says):
        JsonObject(body)


@pytest.mark.parametrize(
    "value",
    [
        b"[" + b'"",' * 5000 + b"0]",
        b"[" + b"[]," * 5000 + b"0]",
        b"[" + b'{"a":[{"b":[[{}]]}]},' * 3000 + b"0]",
        b"[" * 900 + b'"' + b'\\"' * 5000 + b'"' + b"]" * 900,
        b'"' + b'\\"' * 5000 + b"\\\\" * 500 + b'"',
        b"[" + b'"a",' * 2500 + b"[" * 50 + b'"]"' + b"]" * 50 + b"]",
    ],
    ids=["strings", "arrays", "nested", "deep", "escapes", "late depth"],
)
def test_values_of_any_shape_are_kept(value: bytes) -> None:
    raw = b'{"user":' + value + b',"model":"a"}'
    assert JsonObject(raw).edited({"model": "b"}) == b'{"user":' + value + b',"model":"b"}'


def test_more_members_than_any_request_has_are_refused() -> None:
    raw = json.dumps({f"m{number}": 1 for number in range(1001)}).encode()
    with pytest.raises(JsonError, match="more than 1000 members"):
        JsonObject(raw)


def test_a_name_may_occur_again_further_down() -> None:
    body = b'{"model":"a","metadata":{"model":"b"}}'
    assert JsonObject(body).value["model"] == "a"


def test_brackets_and_quotes_inside_strings_do_not_mislead() -> None:
    body = rb'{"a":{"t":"}]\"{["},"model":"x","b":["\\",{"c":"\\\""}]}'
    assert json.loads(JsonObject(body).edited({"model": "y"})) == {**json.loads(body), "model": "y"}


@pytest.mark.parametrize("depth", [3, 5, 10, 100, 900])
def test_members_behind_deep_containers_are_found(depth: int) -> None:
    deep = "[" * depth + '"]",12345678901234567890123,1e30' + "]" * depth
    many = ",".join([deep] * (6000 // depth + 1))
    body = JsonObject(f'{{"a":[{many}],"é":1,"model":"x"}}'.encode())
    assert body.edited({"model": "y"}).endswith(b'"model":"y"}')
    assert body.edited({"a": 1}) == '{"a":1,"é":1,"model":"x"}'.encode()
