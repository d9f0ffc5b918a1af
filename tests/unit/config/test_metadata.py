"""A target's metadata fills in its model's options."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions, parse
from tests.unit.config.samples import advanced, problems, target


def with_metadata(metadata: dict[str, Any], **options: Any) -> Any:
    model = {"provider": "openai", "options": options}
    return advanced(target(), target(model=model, metadata=metadata))


def options_of(config: Any) -> ModelOptions:
    return parse("ai-proxy-advanced", config).targets[1].model.options


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("input_cost", 2.5, 2.5),
        ("input_cost", "2.5", 2.5),
        ("max_tokens", "512", 512),
        ("max_tokens", 512.0, 512),
        ("anthropic_version", "2023-06-01", "2023-06-01"),
        ("upstream_path", "123", "123"),
        ("azure_api_version", "2024-10-21", "2024-10-21"),
        ("llama2_format", "raw", "raw"),
    ],
)
def test_an_entry_named_like_an_option_is_that_option(
    name: str, written: object, meant: object
) -> None:
    assert getattr(options_of(with_metadata({name: written})), name) == meant


@pytest.mark.parametrize("own", [{"max_tokens": 7}, {"max_tokens": 7, "top_k": None}])
def test_an_option_that_is_set_stays(own: dict[str, Any]) -> None:
    found = options_of(with_metadata({"max_tokens": "512", "top_k": "3"}, **own))
    assert (found.max_tokens, found.top_k) == (7, 3)


def test_what_kong_fills_in_is_not_set() -> None:
    own = {"azure_api_version": "2023-05-15", "input_cost": None, "cohere": None}
    metadata = {"azure_api_version": "2024-10-21", "input_cost": "3"}
    found = options_of(with_metadata(metadata, **own))
    assert (found.azure_api_version, found.input_cost) == ("2024-10-21", 3)


@pytest.mark.parametrize(
    "written", [{"aws_region": "eu-west-1"}, '{"aws_region": "eu-west-1", "batch_role_arn": null}']
)
def test_a_record_is_filled_field_by_field(written: object) -> None:
    own = {"bedrock": {"batch_role_arn": "arn:x", "embeddings_normalize": False}}
    found = options_of(with_metadata({"bedrock": written}, **own)).bedrock
    assert (found.aws_region, found.batch_role_arn) == ("eu-west-1", "arn:x")


def test_other_entries_are_free() -> None:
    metadata = {"team": "blue", "price": 7, "nested": {"max_tokens": 3}, "provider": "x"}
    config = with_metadata(metadata)
    assert problems("ai-proxy-advanced", config) == {}
    assert options_of(config) == options_of(with_metadata({}))
    assert parse("ai-proxy-advanced", config).targets[1].metadata == metadata


def test_an_option_that_is_needed_may_come_from_there() -> None:
    alone = target(model={"provider": "mistral"})
    assert list(problems("ai-proxy-advanced", advanced(alone))) == [
        "config.targets[0].model.options.mistral_format"
    ]
    helped = {**alone, "metadata": {"mistral_format": "openai"}}
    assert problems("ai-proxy-advanced", advanced(helped)) == {}


BAD = [
    ({"max_tokens": "many"}, "max_tokens", "expected an integer"),
    ({"max_tokens": True}, "max_tokens", "expected an integer"),
    ({"top_p": 2}, "top_p", "value should be between 0 and 1"),
    ({"top_p": "2"}, "top_p", "value should be between 0 and 1"),
    ({"llama2_format": "x"}, "llama2_format", "expected one of: ollama, openai, raw"),
    ({"upstream_url": "api.example.com"}, "upstream_url", "missing host in url"),
    ({"upstream_path": "$(x.y)"}, "upstream_path", "source 'x' is not supported"),
    ({"bedrock": {"aws_regio": "x"}}, "bedrock.aws_regio", "unknown field, did you mean"),
    ({"bedrock": "eu-west-1"}, "bedrock", "expected a record"),
    ({"cache_write_cost_list": '[{"ttl": "5m"}]'}, "cache_write_cost_list[0].cost", "required"),
]


@pytest.mark.parametrize(("metadata", "field", "message"), BAD)
def test_a_wrong_entry_is_named_where_it_stands(
    metadata: dict[str, Any], field: str, message: str
) -> None:
    ((place, found),) = problems("ai-proxy-advanced", with_metadata(metadata)).items()
    assert place == f"config.targets[1].metadata.{field}"
    assert found.startswith(message)


@pytest.mark.parametrize(
    "config",
    [
        {"targets": None},
        {"targets": "x"},
        {"targets": [None]},
        {"targets": [{"metadata": {"top_k": 1}}]},
        {"targets": [{"metadata": {"top_k": 1}, "model": "gpt"}]},
        advanced(target(metadata="x")),
        with_metadata({"top_k": 1}) | {"targets": [target(model={"provider": "x"}, metadata=[])]},
    ],
)
def test_no_proper_configuration_is_still_told_what_is_wrong(config: Any) -> None:
    assert problems("ai-proxy-advanced", config)


def test_the_configuration_itself_is_not_changed() -> None:
    config = with_metadata({"bedrock": {"aws_region": "x"}}, bedrock={"batch_role_arn": "y"})
    parse("ai-proxy-advanced", config)
    assert config["targets"][1]["model"]["options"] == {"bedrock": {"batch_role_arn": "y"}}
