"""The exports: Kong's schema and JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kong_ai_proxy.config import PLUGINS, json_schema, kong_schema, shape
from kong_ai_proxy.config.export import documents, main
from kong_ai_proxy.config.shapes import Shape
from kong_ai_proxy.resources import path

# What Kong 3.4, the oldest that is supported, knows of a field.
ATTRIBUTES = {
    "type",
    "required",
    "description",
    "default",
    "one_of",
    "between",
    "gt",
    "len_min",
    "match_all",
    "match_any",
    "referenceable",
    "encrypted",
    "fields",
    "elements",
    "keys",
    "values",
    "entity_checks",
}
CHECKS = {
    "mutually_required",
    "mutually_exclusive_sets",
    "conditional",
    "conditional_at_least_one_of",
}


def config_of(plugin: str) -> dict[str, Any]:
    document: dict[str, Any] = kong_schema.export(plugin)
    config: dict[str, Any] = document["fields"][1]["config"]
    return config


def fields_in(field: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield field
    for entry in field.get("fields", ()):
        ((_, inner),) = entry.items()
        yield from fields_in(inner)
    for name in ("elements", "keys", "values"):
        if name in field:
            yield from fields_in(field[name])


def at(field: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        inside = field["elements"]["fields"] if "elements" in field else field["fields"]
        field = next(entry[name] for entry in inside if name in entry)
    return field


@pytest.mark.parametrize(("name", "text"), list(documents()))
def test_the_files_are_current(name: str, text: str) -> None:
    assert path("schemas", name).read_text(encoding="utf-8") == text, "run `make schemas`"


def test_export_writes_the_four_files(tmp_path: Any) -> None:
    assert main([str(tmp_path)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "ai-proxy-advanced.kong.json",
        "ai-proxy-advanced.schema.json",
        "ai-proxy.kong.json",
        "ai-proxy.schema.json",
    ]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_kong_gets_the_plugin_with_protocols_and_a_required_config(plugin: str) -> None:
    document: dict[str, Any] = kong_schema.export(plugin)
    assert document["name"] == plugin
    assert [next(iter(field)) for field in document["fields"]] == ["protocols", "config"]
    assert document["fields"][0]["protocols"] == {
        "type": "set",
        "required": True,
        "default": ["grpc", "grpcs", "http", "https"],
        "elements": {
            "type": "string",
            "one_of": ["grpc", "grpcs", "http", "https", "ws", "wss"],
        },
    }
    assert config_of(plugin)["required"] is True


@pytest.mark.parametrize("plugin", PLUGINS)
def test_kong_3_4_knows_every_attribute(plugin: str) -> None:
    for field in fields_in(config_of(plugin)):
        assert set(field) <= ATTRIBUTES
        assert field["type"] in (
            "array", "boolean", "integer", "map", "number", "record", "string"
        )  # fmt: skip
        assert 10 <= len(field.get("description", "long enough")) <= 500
        for check in field.get("entity_checks", ()):
            assert set(check) <= CHECKS


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_record_says_whether_it_is_required(plugin: str) -> None:
    records = [field for field in fields_in(config_of(plugin)) if field["type"] == "record"]
    assert all("required" in record for record in records)


def test_a_field_has_what_its_declaration_says() -> None:
    targets = at(config_of("ai-proxy-advanced"), "targets")
    assert (targets["required"], targets["len_min"]) == (True, 1)
    assert at(targets, "weight") == {
        "type": "integer",
        "between": [1, 65535],
        "description": "Share of the requests; with algorithm priority, the rank.",
        "default": 100,
    }
    options = at(targets, "model", "options")
    assert at(options, "input_cost")["gt"] == 0
    assert at(options, "temperature")["between"] == [0, 5]
    assert at(targets, "auth", "header_value") == {
        "type": "string",
        "referenceable": True,
        "encrypted": True,
        "description": "Whole value of that header, such as Bearer and the key.",
    }
    assert at(targets, "metadata")["values"] == {"type": "string"}
    criteria = at(config_of("ai-proxy-advanced"), "balancer", "failover_criteria")
    assert criteria["default"] == ["error", "timeout"]
    assert "http_429" in criteria["elements"]["one_of"]


def test_kong_checks_the_rules_that_json_can_say() -> None:
    checks = config_of("ai-proxy")["entity_checks"]
    assert {"mutually_required": ["auth.header_name", "auth.header_value"]} in checks
    azure = {
        "if_field": "model.provider",
        "if_match": {"eq": "azure"},
        "then_at_least_one_of": ["model.options.azure_instance", "model.options.upstream_url"],
        "then_err": "must set 'model.options.azure_instance' for azure provider",
    }
    assert {"conditional_at_least_one_of": azure} in checks
    # The same rules hold for each target, where Kong looks for them in the element.
    advanced = at(config_of("ai-proxy-advanced"), "targets")["elements"]["entity_checks"]
    assert advanced == checks


def paths(found: Shape, base: str = "") -> set[str]:
    inside = (paths(inner, f"{base}.{name}") for name, inner in found.fields.items())
    elements = paths(found.elements, f"{base}[]") if found.elements else set()
    return elements.union(*inside, {f"{base}.{name}" for name in found.fields})


def properties(document: dict[str, Any], base: str = "") -> set[str]:
    here = document.get("properties", {})
    inside = (properties(inner, f"{base}.{name}") for name, inner in here.items())
    items = properties(document["items"], f"{base}[]") if "items" in document else set()
    return items.union(*inside, {f"{base}.{name}" for name in here})


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_json_schema_has_every_field_with_a_description(plugin: str) -> None:
    document: dict[str, Any] = json_schema.export(plugin)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert properties(document) == paths(shape(plugin))
    assert '"description": ""' not in json.dumps(document)


def test_the_json_schema_says_what_a_field_may_be() -> None:
    document: dict[str, Any] = json_schema.export("ai-proxy")
    assert document["required"] == ["model", "route_type"]
    assert document["additionalProperties"] is False
    auth = document["properties"]["auth"]["properties"]
    assert auth["param_location"]["anyOf"] == [
        {"type": "string", "enum": ["body", "query"]},
        {"type": "null"},
    ]
    assert auth["header_value"]["description"].endswith(" May be a vault reference.")
    options = document["properties"]["model"]["properties"]["options"]["properties"]
    assert (options["top_p"]["minimum"], options["top_p"]["maximum"]) == (0, 1)
    assert options["top_p"]["type"] == ["number", "null"]
    gemini = options["gemini"]["dependentRequired"]
    assert gemini["project_id"] == ["api_endpoint", "location_id"]


def test_a_reference_may_stand_for_a_port() -> None:
    document: dict[str, Any] = json_schema.export("ai-proxy-advanced")
    redis = document["properties"]["vectordb"]["properties"]["redis"]["properties"]
    assert redis["port"]["anyOf"] == [
        {"type": "integer", "minimum": 0, "maximum": 65535},
        {"type": "string", "pattern": r"^\{vault://.*\}$"},
        {"type": "null"},
    ]
