"""The exported Kong schemas and the configuration models agree: two readings of the same rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kong_ai_proxy import resources
from kong_ai_proxy.config import ConfigError, parse
from kong_ai_proxy.gateway.schema import PluginSchema, SchemaError

_FIXTURES = Path(__file__).parents[1] / "config" / "fixtures"
_DOCUMENTED = yaml.safe_load((_FIXTURES / "documented_configs.yaml").read_text("utf-8"))
_SCHEMAS = {
    name: PluginSchema(json.loads(resources.path("schemas", f"{name}.kong.json").read_text()))
    for name in ("ai-proxy", "ai-proxy-advanced")
}
_EACH = [
    pytest.param(entry["plugin"], config, id=f"{entry['id']}-{number}")
    for entry in _DOCUMENTED
    for number, config in enumerate(entry["configs"])
]


def _filled_in(value: Any) -> Any:
    """With a value a reader could have put in for each `${x}`."""
    if isinstance(value, dict):
        return {key: _filled_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled_in(item) for item in value]
    return "http://own.example/v1" if isinstance(value, str) and "${" in value else value


def _models_take(plugin: str, config: dict[str, Any]) -> bool:
    try:
        parse(plugin, config)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(("plugin", "config"), _EACH)
def test_a_documented_configuration_is_judged_alike(plugin: str, config: dict[str, Any]) -> None:
    config = _filled_in(config)
    try:
        stored = _SCHEMAS[plugin].process(config)
    except SchemaError:
        assert not _models_take(plugin, config)
    else:
        assert parse(plugin, stored) == parse(plugin, config)


_CHAT: dict[str, Any] = {"route_type": "llm/v1/chat", "model": {"provider": "openai"}}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"route_type": "chat"}, "route_type"),
        ({"route_type": None}, "route_type"),
        ({"model": {}}, "model"),
        ({"model": {"provider": "nobody"}}, "model"),
        ({"model": None}, "model"),
        ({"zz": 1}, "zz"),
        ({"max_request_body_size": -1}, "max_request_body_size"),
        ({"max_request_body_size": "big"}, "max_request_body_size"),
        ({"response_streaming": "maybe"}, "response_streaming"),
        ({"model": {"provider": "openai", "options": {"temperature": 6}}}, "model"),
        ({"model": {"provider": "openai", "options": {"top_k": 501}}}, "model"),
        ({"auth": {"header_name": "Authorization"}}, "@entity"),
        ({"auth": {"param_name": "key", "param_value": "v"}}, "@entity"),
        ({"model": {"provider": "mistral"}}, "@entity"),
        ({"model": {"provider": "llama2", "options": {"llama2_format": "raw"}}}, "@entity"),
        ({"model_name_header": "yes"}, "model_name_header"),
    ],
)
def test_a_wrong_field_is_refused_by_both_and_named(change: dict[str, Any], field: str) -> None:
    config = {**_CHAT, **change}
    assert not _models_take("ai-proxy", config)
    with pytest.raises(SchemaError) as caught:
        _SCHEMAS["ai-proxy"].process(config)
    assert field in caught.value.fields["config"]


def test_a_wrong_field_of_a_target_is_named_by_its_place() -> None:
    targets = [_CHAT, {**_CHAT, "weight": 0}]
    assert not _models_take("ai-proxy-advanced", {"targets": targets})
    with pytest.raises(SchemaError) as caught:
        _SCHEMAS["ai-proxy-advanced"].process({"targets": targets})
    wrong = {"weight": "value should be between 1 and 65535"}
    assert caught.value.fields == {"config": {"targets": [None, wrong]}}
