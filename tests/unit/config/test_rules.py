"""Rules between fields, with Kong's texts and the field that mends them."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config.rules import NOT_ENFORCED, REFUSED
from tests.unit.config.samples import advanced, problems, target


def model(provider: str, **options: Any) -> dict[str, Any]:
    return {"provider": provider, "options": options}


HEADER = "all or none of these fields must be set: 'auth.header_name', 'auth.header_value'"
PARAM = (
    "all or none of these fields must be set: "
    "'auth.param_name', 'auth.param_value', 'auth.param_location'"
)
VERTEX = "all or none of these fields must be set: 'api_endpoint', 'project_id', 'location_id'"
OVERRIDE = "bedrock and gemini only support auth.allow_override = false"
SELF_HOSTED = "must set 'model.options.upstream_url' for self-hosted providers/models"

BROKEN = [
    (target(auth={"header_name": "Authorization"}), {"auth.header_value": HEADER}),
    (target(auth={"header_value": "Bearer x"}), {"auth.header_name": HEADER}),
    (target(auth={"param_name": "key", "param_value": "x"}), {"auth.param_location": PARAM}),
    (target(auth={"param_location": "query"}), {"auth.param_name": PARAM}),
    (
        target(model=model("bedrock"), auth={"allow_override": True}),
        {"auth.allow_override": OVERRIDE},
    ),
    (
        target(model=model("gemini"), auth={"allow_override": True}),
        {"auth.allow_override": OVERRIDE},
    ),
    (
        target(model=model("gemini", gemini={"location_id": "us-east1"})),
        {"model.options.gemini.api_endpoint": VERTEX},
    ),
    (
        target(model=model("llama2")),
        {
            "model.options.llama2_format": (
                "must set 'model.options.llama2_format' for llama2 provider"
            ),
            "model.options.upstream_url": SELF_HOSTED,
        },
    ),
    (
        target(model=model("mistral")),
        {
            "model.options.mistral_format": (
                "must set 'model.options.mistral_format' for mistral provider"
            )
        },
    ),
    (
        target(model=model("anthropic")),
        {
            "model.options.anthropic_version": (
                "must set 'model.options.anthropic_version' for anthropic provider"
            )
        },
    ),
    (
        target(model=model("azure")),
        {
            "model.options.azure_instance": (
                "must set 'model.options.azure_instance' for azure provider"
            ),
            "model.options.azure_deployment_id": (
                "must set 'model.options.azure_deployment_id' for azure provider"
            ),
        },
    ),
    (target(model=model("vllm")), {"model.options.upstream_url": SELF_HOSTED}),
    (
        target(model=model("gemini"), route_type="llm/v1/completions"),
        {
            "route_type": (
                "the public Gemini API does not support llm/v1/completions, only Vertex AI does: "
                "set api_endpoint, project_id and location_id in model.options.gemini"
            )
        },
    ),
    (
        target(
            model=model("llama2", llama2_format="raw", upstream_url="http://llama.local"),
            route_type="llm/v1/embeddings",
        ),
        {"route_type": "llama2_format raw does not support llm/v1/embeddings"},
    ),
]


@pytest.mark.parametrize(("config", "expected"), BROKEN)
def test_a_broken_rule_of_one_model_names_the_field(
    config: dict[str, Any], expected: dict[str, str]
) -> None:
    alone = {f"config.{field}": message for field, message in expected.items()}
    assert problems("ai-proxy", config) == alone
    second = {f"config.targets[1].{field}": message for field, message in expected.items()}
    assert problems("ai-proxy-advanced", advanced(target(), config)) == second


URL = "https://models.example/v1"
KEPT = [
    target(auth={"header_name": "Authorization", "header_value": "Bearer x"}),
    target(auth={"param_name": "key", "param_value": "x", "param_location": "query"}),
    target(model=model("bedrock"), auth={"allow_override": False}),
    target(model=model("gemini"), auth=None),
    target(
        model=model("gemini", gemini={"api_endpoint": "a", "project_id": "b", "location_id": "c"})
    ),
    target(model=model("llama2", llama2_format="raw", upstream_url=URL)),
    target(model=model("mistral", mistral_format="openai")),
    target(model=model("anthropic", anthropic_version="2023-06-01")),
    target(model=model("azure", azure_instance="i", azure_deployment_id="d")),
    target(model=model("azure", upstream_url=URL, azure_deployment_id="d")),
    target(model=model("vllm", upstream_url=URL)),
]


@pytest.mark.parametrize("config", KEPT)
def test_a_kept_rule_is_no_problem(config: dict[str, Any]) -> None:
    assert problems("ai-proxy", config) == {}
    assert problems("ai-proxy-advanced", advanced(config)) == {}


NOT_ENFORCED_HERE = {
    "native_route_type": target(llm_format="bedrock", route_type="llm/v1/embeddings"),
    "native_provider": target(llm_format="gemini"),
    "statistics_unsupported": target(
        route_type="llm/v1/completions",
        model=model("anthropic", anthropic_version="2023-06-01"),
        logging={"log_statistics": True},
    ),
    "max_request_body_size": target(max_request_body_size=0),
    "cost_needs_statistics": advanced(
        target(model=model("openai", input_cost=1, output_cost=2)),
        balancer={"algorithm": "lowest-usage", "tokens_count_strategy": "cost"},
    ),
}


def test_each_rule_that_is_not_enforced_has_a_configuration_here() -> None:
    assert {rule.name for rule in NOT_ENFORCED} == set(NOT_ENFORCED_HERE)
    assert all(rule.rule and rule.reason for rule in NOT_ENFORCED)


@pytest.mark.parametrize("name", NOT_ENFORCED_HERE)
def test_a_rule_that_is_not_enforced_refuses_nothing(name: str) -> None:
    config = NOT_ENFORCED_HERE[name]
    plugin = "ai-proxy-advanced" if "targets" in config else "ai-proxy"
    assert problems(plugin, config) == {}


ACCURACY = {"tokens_count_strategy": "llm-accuracy"}
REFUSED_HERE = {
    "balancer.tokens_count_strategy llm-accuracy": (
        "config.balancer.tokens_count_strategy",
        advanced(balancer={"algorithm": "lowest-usage", **ACCURACY}),
    ),
}


def test_what_is_refused_for_good_says_why() -> None:
    assert set(REFUSED_HERE) == set(REFUSED)
    for name, (field, config) in REFUSED_HERE.items():
        assert problems("ai-proxy-advanced", config) == {field: REFUSED[name]}


def test_a_usage_that_nothing_compares_is_no_problem() -> None:
    assert problems("ai-proxy-advanced", advanced(balancer=ACCURACY)) == {}


def test_semantic_balancing_needs_its_model_database_and_descriptions() -> None:
    config = advanced(target(description="code"), target(), balancer={"algorithm": "semantic"})
    assert problems("ai-proxy-advanced", config) == {
        "config.embeddings": "must set 'embeddings' for algorithm semantic",
        "config.vectordb": "must set 'vectordb' for algorithm semantic",
        "config.targets[1].description": "must set 'description' for algorithm semantic",
    }


def test_balancing_by_cost_needs_prices() -> None:
    balancer = {"algorithm": "lowest-usage", "tokens_count_strategy": "cost"}
    priced = target(model=model("openai", input_cost=1, output_cost=2))
    found = problems("ai-proxy-advanced", advanced(priced, target(), balancer=balancer))
    assert set(found) == {
        "config.targets[1].model.options.input_cost",
        "config.targets[1].model.options.output_cost",
    }


REDIS = [
    ({"sentinel_master": "main"}, "sentinel_role", "all or none of these fields must be set"),
    (
        {
            "cluster_nodes": [{}],
            "sentinel_master": "main",
            "sentinel_role": "any",
            "sentinel_nodes": [{}],
        },
        "sentinel_master",
        "these sets are mutually exclusive",
    ),
    (
        {"connection_is_proxied": True, "cluster_nodes": [{}]},
        "cluster_nodes",
        "connection_is_proxied can",
    ),
    (
        {"cloud_authentication": {"auth_provider": "aws", "aws_region": "eu-west-1"}},
        "cloud_authentication.aws_cache_name",
        "must set 'aws_cache_name' for auth_provider aws",
    ),
]


@pytest.mark.parametrize(("redis", "field", "message"), REDIS)
def test_a_redis_is_one_server_a_cluster_or_sentinels(
    redis: dict[str, Any], field: str, message: str
) -> None:
    vectordb = {"strategy": "redis", "distance_metric": "cosine", "dimensions": 3, "redis": redis}
    found = problems("ai-proxy-advanced", advanced(vectordb=vectordb))
    assert found[f"config.vectordb.redis.{field}"].startswith(message)
    assert len(found) == 1


ADDRESSES = [
    ("https://$(uri_captures.x).example.com", None),
    ("https://api.example.com:8443/v1/chat?a=b", None),
    ("http://[::1]:8080", None),
    ("wss://realtime.example/v1", None),
    ("api.example.com/v1", "missing host in url"),
    ("https:///v1", "missing host in url"),
    ("//api.example.com", "missing scheme in url"),
    ("ftp://api.example.com", "expected a url that begins with http:// or https://"),
    ("$(headers.x)", "missing host in url"),
]


@pytest.mark.parametrize(("url", "message"), ADDRESSES)
def test_an_upstream_url_is_a_whole_address(url: str, message: str | None) -> None:
    found = problems("ai-proxy", target(model=model("openai", upstream_url=url)))
    assert found.get("config.model.options.upstream_url") == message
