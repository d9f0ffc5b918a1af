"""Rules of config.acls that could never hold are refused, with the place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kong_ai_proxy import resources
from kong_ai_proxy.config.acls import network
from kong_ai_proxy.gateway.schema import PluginSchema, SchemaError
from tests.unit.config.samples import advanced, problems

SCHEMA = PluginSchema(
    json.loads(resources.path("schemas", "ai-proxy-advanced.kong.json").read_text())
)
GOOD = {"type": "consumer", "values": ["bob"]}


def with_match(match: dict[str, Any]) -> dict[str, Any]:
    return advanced(acls={"deny": [{"match": [GOOD, match]}]})


def match_of(kind: str, *values: str, key: str | None = None) -> dict[str, Any]:
    return {"type": kind, "values": list(values)} | ({"key": key} if key else {})


TAKEN = [
    match_of("consumer", "bob"),
    match_of("consumer", "bob", key="username"),
    match_of("consumer", "2f0ae8f5-8d9e-4d2b-a3c5-3f4f0c3f7b51", key="id"),
    match_of("consumer_group", "gold"),
    match_of("consumer_group", "gold", key="name"),
    match_of("consumer_group", "gold", key="id"),
    match_of("header", "blue", key="X-Team"),
    match_of("ip", "10.0.0.1", "10.0.0.0/8", "10.1.2.3/8", "::1", "2001:db8::/32"),
    match_of("ip", "::ffff:10.0.0.1"),
    match_of("model", "gpt-5", "any name"),
    match_of("path", "/chat", "/"),
    match_of("provider", "openai", "bedrock"),
    {**match_of("model", "gpt-5"), "key": None},
]
KEY, VALUE = "key", "values[0]"
REFUSED = [
    (match_of("header", "blue"), KEY, "must set 'key', the name of the header, for type header"),
    (match_of("consumer", "bob", key="name"), KEY, "expected id, username or none for type"),
    (match_of("consumer", "bob", key="custom_id"), KEY, "expected id, username or none for type"),
    (match_of("consumer_group", "gold", key="username"), KEY, "expected id, name or none for type"),
    (match_of("ip", "office"), VALUE, "expected an IP address or a range"),
    (match_of("ip", "10.0.0.1 "), VALUE, "expected an IP address or a range"),
    (match_of("path", "chat"), VALUE, "expected a path that begins with /"),
    (match_of("provider", "OpenAI"), VALUE, "expected one of: anthropic, azure"),
    (match_of("model"), "values", "length must be at least 1"),
]


@pytest.mark.parametrize("match", TAKEN)
def test_a_condition_that_can_hold_is_taken(match: dict[str, Any]) -> None:
    assert problems("ai-proxy-advanced", with_match(match)) == {}
    SCHEMA.process(with_match(match))


@pytest.mark.parametrize(("match", "field", "message"), REFUSED)
def test_a_condition_that_cannot_is_refused_by_both_schemas(
    match: dict[str, Any], field: str, message: str
) -> None:
    ((place, found),) = problems("ai-proxy-advanced", with_match(match)).items()
    assert place == f"config.acls.deny[0].match[1].{field}"
    assert found.startswith(message)
    with pytest.raises(SchemaError) as caught:
        SCHEMA.process(with_match(match))
    assert message.split(":")[0] in str(caught.value.fields)


@pytest.mark.parametrize("value", ["10.0.0.256", "10.0.0.0/33", "1:2", "2001:db8::/129"])
def test_an_address_that_only_looks_like_one_is_refused(value: str) -> None:
    found = problems("ai-proxy-advanced", with_match(match_of("ip", "10.0.0.1", value)))
    assert list(found) == ["config.acls.deny[0].match[1].values[1]"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
        ("2001:db8::1", "2001:db8::1/128"),
    ],
)
def test_a_range_is_what_it_covers(written: str, meant: str) -> None:
    assert str(network(written)) == meant


def test_an_accuracy_that_nobody_judges_is_refused_by_kongs_schema_too() -> None:
    balancer = {"algorithm": "lowest-usage", "tokens_count_strategy": "llm-accuracy"}
    with pytest.raises(SchemaError) as caught:
        SCHEMA.process(advanced(balancer=balancer))
    assert "needs the Enterprise plugin ai-llm-as-judge" in str(caught.value.fields)
    SCHEMA.process(advanced(balancer={**balancer, "algorithm": "round-robin"}))
