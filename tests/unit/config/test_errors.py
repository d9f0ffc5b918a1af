"""What a configuration error says, and what it never says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kong_ai_proxy.config import AiProxy, ConfigError, parse, shape
from kong_ai_proxy.config.shapes import Shape
from tests.unit.config.samples import advanced, complete, problems, target, with_value

SECRET = "sk-very-secret"


def test_every_mistake_is_reported_at_once() -> None:
    config = target(
        auth={"header_name": "Authorization"},
        model={"provider": "openai", "nam": "x", "options": {"temperature": 9}},
        route_type="llm/v1/chats",
    )
    assert set(problems("ai-proxy", config)) == {
        "config.auth.header_value",
        "config.model.nam",
        "config.model.options.temperature",
        "config.route_type",
    }


def test_the_text_has_one_line_for_each_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("ai-proxy", {})
    assert caught.value.plugin == "ai-proxy"
    assert str(caught.value).splitlines() == [
        "config.model: required field missing",
        "config.route_type: required field missing",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_token", "unknown field, did you mean 'max_tokens'?"),
        ("seconds", "unknown field"),
    ],
)
def test_an_unknown_field_is_named_with_the_one_that_was_meant(name: str, message: str) -> None:
    config = target(model={"provider": "openai", "options": {name: 1}})
    assert problems("ai-proxy", config) == {f"config.model.options.{name}": message}


def test_a_field_inside_an_array_is_found_by_its_index() -> None:
    wrong = target(weight=0)
    found = problems("ai-proxy-advanced", advanced(target(), wrong))
    assert found == {"config.targets[1].weight": "value should be between 1 and 65535"}


def test_a_name_that_is_no_text_is_an_unknown_field() -> None:
    config: dict[Any, object] = {5: 1}
    found = problems("ai-proxy", config | target())
    assert found == {"config.5": "unknown field"}


@pytest.mark.parametrize("config", [5, "x", [1], True])
def test_what_is_no_record_is_refused(config: object) -> None:
    assert problems("ai-proxy", config) == {"config": "expected a record"}


def test_an_unknown_plugin_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        parse("ai-prompt-guard", {})


def secret_fields(found: Shape, base: str = "config") -> list[str]:
    here = [base] if found.encrypted or found.referenceable else []
    inside = (secret_fields(inner, f"{base}.{name}") for name, inner in found.fields.items())
    element = [secret_fields(found.elements, f"{base}[]")] if found.elements else []
    return sum([*inside, *element], here)


SECRETS = secret_fields(shape("ai-proxy-advanced"))


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_is_in_no_error(path: str) -> None:
    for value in ({SECRET: SECRET}, [SECRET], f"$({SECRET}"):
        config = with_value(complete("ai-proxy-advanced"), path, value)
        config["llm_format"] = 5
        with pytest.raises(ConfigError) as caught:
            parse("ai-proxy-advanced", config)
        texts = [str(caught.value), repr(caught.value), repr(caught.value.__context__)]
        assert SECRET not in "".join(texts)


@pytest.mark.parametrize("path", [path for path in SECRETS if ".port" not in path])
def test_a_secret_is_not_shown_with_its_record(path: str) -> None:
    if path.endswith("auth_provider"):
        return
    config = with_value(complete("ai-proxy-advanced"), path, SECRET)
    _, name = path.rsplit(".", 1)
    pair = {"header": {"header_name": SECRET, "header_value": SECRET}}
    pair["param"] = {"param_name": SECRET, "param_value": SECRET, "param_location": "query"}
    auth = pair.get(name.split("_")[0])
    if auth:
        config = with_value(config, path.rsplit(".", 1)[0], auth)
    parsed = parse("ai-proxy-advanced", config)
    assert SECRET not in f"{parsed!r} {parsed}"


def test_a_secret_that_a_vault_did_not_have_is_explained() -> None:
    found = problems("ai-proxy", target(auth={"header_name": "x-api-key", "header_value": ""}))
    assert found == {
        "config.auth.header_value": (
            "length must be at least 1 (or Kong could not resolve its vault reference)"
        )
    }


def test_a_configuration_cannot_be_changed() -> None:
    config = parse("ai-proxy", target())
    assert isinstance(config, AiProxy)
    with pytest.raises(ValidationError, match="frozen"):
        config.route_type = "preserve"  # type: ignore[misc] # read-only, as it should be


def test_one_integer_may_be_a_float_without_fraction() -> None:
    config = with_value(target(), "config.model.options.max_tokens", 256.0)
    max_tokens = parse("ai-proxy", config).targets[0].model.options.max_tokens
    assert (max_tokens, type(max_tokens)) == (256, int)


LUA = [
    target(auth=[], logging=[], model={"provider": "openai", "options": []}),
    target(auth=None, logging=None, model={"provider": "openai", "options": None, "name": None}),
    target(model={"provider": "openai", "options": {"context_window_factor": {}, "gemini": []}}),
    target(auth={"$refs": {"header_value": "{vault://env/x}"}}),
    target(unknown=None),
]


@pytest.mark.parametrize("config", LUA)
def test_what_lua_makes_of_nothing_is_nothing(config: dict[str, Any]) -> None:
    assert parse("ai-proxy", config) == parse("ai-proxy", target())


def test_an_empty_map_may_come_as_an_array() -> None:
    parsed = parse("ai-proxy-advanced", advanced(target(metadata=[])))
    assert parsed.targets[0].metadata == {}


TEXT = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(0, 100_000),
        "temperature": st.floats(0, 5),
        "top_k": st.integers(0, 500) | st.integers(0, 500).map(float),
        "azure_instance": TEXT,
        "gemini": st.just({}) | st.just([]) | st.none(),
        "service_tier_factor": st.lists(
            st.fixed_dictionaries({"factor": st.floats(0, 9), "tier": TEXT}), max_size=2
        ),
    },
)
TARGETS = st.fixed_dictionaries(
    {
        "route_type": st.sampled_from(["llm/v1/chat", "preserve", "llm/v1/embeddings"]),
        "model": st.fixed_dictionaries(
            {"provider": st.sampled_from(["openai", "gemini", "cohere"]), "options": OPTIONS},
            optional={"name": TEXT, "model_alias": TEXT | st.none()},
        ),
    },
    optional={
        "auth": st.fixed_dictionaries({"header_name": TEXT, "header_value": TEXT}),
        "logging": st.fixed_dictionaries({}, optional={"log_payloads": st.booleans()}),
    },
)


@given(TARGETS, st.lists(TARGETS, max_size=2))
def test_what_was_parsed_parses_to_the_same(
    config: dict[str, Any], more: list[dict[str, Any]]
) -> None:
    for plugin, written in (("ai-proxy", config), ("ai-proxy-advanced", advanced(config, *more))):
        parsed = parse(plugin, written)
        assert parse(plugin, parsed.model_dump(mode="json", exclude_defaults=True)) == parsed
