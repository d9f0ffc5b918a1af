"""What Kong does with a configuration and its schema.

`schema_answers.json` holds configurations, small schemas and what the schema library of a Kong
3.9.3 answered: the stored configuration, or its message and fields.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from kong_ai_proxy.gateway.schema import PluginSchema, SchemaError
from kong_ai_proxy.gateway.schema.values import lua_pattern

_RECORDED = json.loads((Path(__file__).parent / "schema_answers.json").read_text("utf-8"))
_CASES = [
    pytest.param(_RECORDED["documents"][case["document"]], case["entity"], case["answer"],
                 id=f"{case['title']}-{number}")
    for number, case in enumerate(_RECORDED["cases"])
]  # fmt: skip


_LUA_MATCHES = LuaRuntime().eval("function(s, p) return string.match(s, p) ~= nil end")


def _like_lua(value: Any) -> Any:
    """Kong's JSON does not tell an empty object from an empty array."""
    if isinstance(value, dict):
        return {key: _like_lua(item) for key, item in value.items()} or []
    return [_like_lua(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("document", "entity", "answer"), _CASES)
def test_it_answers_as_a_real_kong_did(
    document: dict[str, Any], entity: dict[str, Any], answer: dict[str, Any]
) -> None:
    try:
        stored = PluginSchema(document).process_entity(entity)
    except SchemaError as error:
        found: dict[str, Any] = {"message": error.message, "fields": error.fields}
    else:
        found = {"config": stored.get("config"), "protocols": stored["protocols"]}
    assert _like_lua(found) == _like_lua(answer)


def _document(*fields: dict[str, Any]) -> dict[str, Any]:
    config = {"config": {"type": "record", "fields": list(fields)}}
    return {"name": "probe", "fields": [config]}


def test_process_gives_the_configuration_alone() -> None:
    schema = PluginSchema(_document({"x": {"type": "integer", "default": 3}}))
    assert schema.process({}) == {"x": 3}


def test_process_leaves_its_argument_alone() -> None:
    elements = {"type": "record", "fields": [{"x": {"type": "integer", "default": 3}}]}
    given: dict[str, Any] = {"list": [{}]}
    PluginSchema(_document({"list": {"type": "array", "elements": elements}})).process(given)
    assert given == {"list": [{}]}


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1.5])
def test_a_number_that_is_not_whole_is_no_integer(value: float) -> None:
    with pytest.raises(SchemaError, match="expected an integer"):
        PluginSchema(_document({"x": {"type": "integer"}})).process({"x": value})


def test_an_integer_may_be_larger_than_any_float() -> None:
    schema = PluginSchema(_document({"x": {"type": "integer"}}))
    assert schema.process({"x": 10**400}) == {"x": 10**400}


def test_an_error_is_the_body_of_the_admin_api() -> None:
    schema = PluginSchema(_document({"x": {"type": "string", "required": True}}))
    with pytest.raises(SchemaError) as caught:
        schema.process({})
    assert caught.value.body() == {
        "code": 2,
        "name": "schema violation",
        "message": "schema violation (config.x: required field missing)",
        "fields": {"config": {"x": "required field missing"}},
    }


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ({"type": "string", "custom_validator": "f"}, "attribute 'custom_validator'"),
        ({"type": "json"}, "type 'json'"),
        ({"type": "record", "fields": [], "entity_checks": [{"weird": []}]}, "'weird'"),
    ],
)
def test_a_rule_it_does_not_understand_is_not_passed_over(field: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PluginSchema(_document({"x": field}))


@pytest.mark.parametrize("pattern", ["%b()", "%f[%w]", "(a)%1", "[a", "x%"])
def test_lua_patterns_without_counterpart_are_refused(pattern: str) -> None:
    schema = PluginSchema(_document({"x": {"type": "string", "match": pattern}}))
    with pytest.raises(ValueError, match="Lua pattern"):
        schema.process({"x": "a"})


_ITEMS = [
    "a",
    "b",
    ".",
    "%a",
    "%d",
    "%s",
    "%w",
    "%p",
    "%A",
    "%W",
    "[ab]",
    "[^a]",
    "[a-c1]",
    "[%d-]",
]
_ITEMS += ["[%a_]", "%.", "%-", "-", "/", "(a)", "(b*)", "[]a]", "[^]]", "%%", "+", "?", "*"]
_REPEATED = st.tuples(st.sampled_from(_ITEMS), st.sampled_from(["", "*", "+", "-", "?"])).map(
    "".join
)
_PATTERNS = st.tuples(
    st.sampled_from(["", "^"]),
    st.lists(_REPEATED, min_size=1).map("".join),
    st.sampled_from(["", "$"]),
).map("".join)


@given(_PATTERNS, st.text("ab1 -./%c]_+A", max_size=6))
def test_a_pattern_matches_what_it_matches_in_lua(pattern: str, text: str) -> None:
    assert (lua_pattern(pattern).search(text) is not None) == _LUA_MATCHES(text, pattern)


# -- references and secrets ------------------------------------------------------------------------

_SECRET = {"type": "string", "referenceable": True, "encrypted": True}
_AUTH = {"type": "record", "fields": [{"name": {"type": "string"}}, {"value": _SECRET}]}
_VAULT = PluginSchema(
    _document(
        {"auth": _AUTH},
        {"plain": {"type": "string"}},
        {"targets": {"type": "array", "elements": {"type": "record", "fields": [{"auth": _AUTH}]}}},
        {"keys": {"type": "array", "elements": _SECRET}},
        {"more": {"type": "map", "keys": {"type": "string"}, "values": _SECRET}},
    )
)
_CONFIG = {
    "auth": {"name": "{vault://env/a}", "value": "{vault://env/b}"},
    "plain": "{vault://env/c}",
    "targets": [{"auth": {"value": "plain"}}, {"auth": {"value": "{vault://env/d}"}}],
    "keys": ["x", "{vault://env/e}"],
    "more": {"k": "{vault://env/f}"},
}
_REFERENCES = {
    "auth.value": "{vault://env/b}",
    "targets.1.auth.value": "{vault://env/d}",
    "keys.1": "{vault://env/e}",
    "more.k": "{vault://env/f}",
}


def test_references_are_found_only_where_a_field_may_hold_one() -> None:
    assert _VAULT.references(_CONFIG) == _REFERENCES


def test_resolving_replaces_the_references_and_says_which_they_were() -> None:
    resolved, refs = _VAULT.resolve(_CONFIG, lambda reference: reference[-2:-1].upper())
    assert refs == _REFERENCES
    assert resolved == {
        "auth": {"name": "{vault://env/a}", "value": "B"},
        "plain": "{vault://env/c}",
        "targets": [{"auth": {"value": "plain"}}, {"auth": {"value": "D"}}],
        "keys": ["x", "E"],
        "more": {"k": "F"},
    }
    assert _VAULT.references(_CONFIG) == _REFERENCES  # the original is as it was


def test_what_people_read_has_no_secret() -> None:
    resolved, refs = _VAULT.resolve(_CONFIG, lambda _: "secret")
    assert _VAULT.redact(resolved, refs) == {
        "auth": {"name": "{vault://env/a}", "value": "{vault://env/b}"},
        "plain": "{vault://env/c}",
        "targets": [{"auth": {"value": "REDACTED"}}, {"auth": {"value": "{vault://env/d}"}}],
        "keys": ["REDACTED", "{vault://env/e}"],
        "more": {"k": "{vault://env/f}"},
    }
