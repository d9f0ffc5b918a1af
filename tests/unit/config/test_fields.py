"""Every field of both plugins, against the table of the Kong 3.15 plugin schemas."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kong_ai_proxy.config import PLUGINS, AiProxy, parse, shape
from kong_ai_proxy.config.shapes import Shape
from tests.unit.config.samples import FIXTURES, complete, first, parts, problems, with_value

TABLE: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    (FIXTURES / "fields.yaml").read_text(encoding="utf-8")
)
ROWS = [(plugin, path) for plugin in PLUGINS for path in TABLE[plugin]]

# What the models have beside the published schemas, with where it comes from.
ADDED = {
    "config.targets": {"len_min": 1},  # Kong's documentation: at least one target
}
WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "string": ((5, True, ["x"], {"x": 1}), "expected a string"),
    "integer": ((256.5, "3", True, float("inf")), "expected an integer"),
    "number": (("1", True, [1]), "expected a number"),
    "boolean": ((1, "true", [True]), "expected a boolean"),
    "record": (("x", 5, [1]), "expected a record"),
    "array": (("x", 5, {"x": 1}), "expected an array"),
    "object": (("x", 5, [1]), "expected a map"),
}


def wanted(plugin: str, path: str) -> dict[str, Any]:
    return {**TABLE[plugin][path], **ADDED.get(path, {})}


def rows_with(attribute: str) -> list[tuple[str, str]]:
    return [(plugin, path) for plugin, path in ROWS if attribute in TABLE[plugin][path]]


def field(plugin: str, path: str) -> Shape:
    found = shape(plugin)
    for part in parts(path):
        inner = found.elements if part == 0 else found.fields[str(part)]
        assert inner is not None
        found = inner
    return found


def paths(found: Shape, base: str = "config") -> set[str]:
    inner = {name: f"{base}.{name}" for name in found.fields}
    deeper = (paths(found.fields[name], path) for name, path in inner.items())
    elements = paths(found.elements, f"{base}[]") if found.elements else set()
    return set(inner.values()).union(elements, *deeper)


def as_table(found: Shape) -> dict[str, Any]:
    """A field in the table's words."""
    row: dict[str, Any] = {"type": "object" if found.kind == "map" else found.kind}
    for flag in ("required", "referenceable", "encrypted"):
        if getattr(found, flag):
            row[flag] = True
    for name in ("one_of", "between"):
        if getattr(found, name):
            row[name] = list(getattr(found, name))
    for name in ("default", "len_min"):
        if getattr(found, name) is not None:
            row[name] = getattr(found, name)
    if found.elements:
        row["items"] = "object" if found.elements.kind == "record" else found.elements.kind
        if found.elements.one_of:
            row["items_one_of"] = list(found.elements.one_of)
    return row


@pytest.mark.parametrize(("plugin", "count"), [("ai-proxy", 83), ("ai-proxy-advanced", 212)])
def test_the_fields_are_those_of_the_table(plugin: str, count: int) -> None:
    assert paths(shape(plugin)) == set(TABLE[plugin])
    assert len(TABLE[plugin]) == count


@pytest.mark.parametrize(("plugin", "path"), ROWS)
def test_a_field_is_declared_as_in_the_table(plugin: str, path: str) -> None:
    assert as_table(field(plugin, path)) == wanted(plugin, path)


@pytest.mark.parametrize(("plugin", "path"), ROWS)
def test_a_field_of_the_wrong_type_is_refused(plugin: str, path: str) -> None:
    values, message = WRONG[TABLE[plugin][path]["type"]]
    for value in values:
        found = problems(plugin, with_value(complete(plugin), path, value))
        assert found.get(first(path)) == message, value


@pytest.mark.parametrize(
    ("plugin", "path"),
    # Sentinels exclude the cluster that `complete` has; they have the next test.
    [row for row in rows_with("default") if ".sentinel_nodes[]" not in row[1]],
)
def test_a_field_left_out_has_its_default(plugin: str, path: str) -> None:
    config = complete(plugin)
    for absent in (config, with_value(config, path, None)):
        value: Any = parse(plugin, absent)
        for part in parts(path):
            value = value[part] if isinstance(part, int) else getattr(value, part)
        default = TABLE[plugin][path]["default"]
        assert value == (tuple(default) if isinstance(default, list) else default)


def test_a_sentinel_has_defaults() -> None:
    config = complete("ai-proxy-advanced")
    config["vectordb"]["redis"] = {
        "sentinel_master": "main",
        "sentinel_role": "master",
        "sentinel_nodes": [{}],
    }
    vectordb = parse("ai-proxy-advanced", config).vectordb  # type: ignore[union-attr]
    assert vectordb is not None
    assert (vectordb.redis.sentinel_nodes[0].host, vectordb.redis.sentinel_nodes[0].port) == (
        "127.0.0.1",
        6379,
    )


@pytest.mark.parametrize(("plugin", "path"), rows_with("required"))
def test_a_required_field_may_not_be_missing_or_null(plugin: str, path: str) -> None:
    config = with_value(complete(plugin), path, None)
    assert problems(plugin, config).get(first(path)) == "required field missing"


@pytest.mark.parametrize(("plugin", "path"), rows_with("one_of"))
def test_a_choice_takes_its_values_and_no_other(plugin: str, path: str) -> None:
    choices = TABLE[plugin][path]["one_of"]
    config = with_value(complete(plugin), path, "nonsense")
    assert problems(plugin, config)[first(path)] == f"expected one of: {', '.join(choices)}"
    for choice in choices:
        found = problems(plugin, with_value(complete(plugin), path, choice))
        assert "expected" not in found.get(first(path), "")


@pytest.mark.parametrize(("plugin", "path"), rows_with("between"))
def test_a_number_stays_in_its_range(plugin: str, path: str) -> None:
    low, high = TABLE[plugin][path]["between"]
    for value in (low, high):
        assert first(path) not in problems(plugin, with_value(complete(plugin), path, value))
    for value in (low - 1, high + 1):
        found = problems(plugin, with_value(complete(plugin), path, value))
        assert found[first(path)] == f"value should be between {low} and {high}"


@pytest.mark.parametrize(("plugin", "path"), rows_with("len_min"))
def test_nothing_is_too_short(plugin: str, path: str) -> None:
    empty: object = [] if TABLE[plugin][path]["type"] == "array" else ""
    found = problems(plugin, with_value(complete(plugin), path, empty))
    assert found[first(path)] == "length must be at least 1"


@pytest.mark.parametrize(("plugin", "path"), rows_with("referenceable"))
def test_a_vault_reference_is_accepted(plugin: str, path: str) -> None:
    config = with_value(complete(plugin), path, "{vault://env/my-secret}")
    assert "expected" not in problems(plugin, config).get(first(path), "")


@pytest.mark.parametrize(
    ("path", "value"),
    [("config.model.options.input_cost", 0), ("config.max_request_body_size", -1)],
)
def test_a_number_may_have_a_lower_limit(path: str, value: int) -> None:
    found = problems("ai-proxy", with_value(complete("ai-proxy"), path, value))
    assert found[path].startswith("value must be greater than ")


def test_no_body_limit_is_a_limit_of_zero() -> None:
    config = with_value(complete("ai-proxy"), "config.max_request_body_size", 0)
    assert parse("ai-proxy", config).max_request_body_size == 0


def test_both_plugins_give_targets() -> None:
    config = complete("ai-proxy")
    one = parse("ai-proxy", config)
    assert isinstance(one, AiProxy)
    (target,) = one.targets
    assert (target.model, target.auth, target.route_type) == (one.model, one.auth, one.route_type)
    assert target == parse("ai-proxy-advanced", {"targets": [config]}).targets[0]
