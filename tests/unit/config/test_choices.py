"""Every choice that a configuration has is served, but for what is refused for good."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from kong_ai_proxy.config import ConfigError, parse
from kong_ai_proxy.config.records import LlmFormat, Provider, RouteType
from kong_ai_proxy.config.rules import REFUSED
from kong_ai_proxy.exchange.plan import Plan
from tests.unit.config.samples import advanced, target

URL = "https://models.example/v1"
OPTIONS: dict[str, dict[str, Any]] = {
    "anthropic": {"anthropic_version": "2023-06-01"},
    "azure": {"azure_instance": "i", "azure_deployment_id": "d"},
    "bedrock": {"bedrock": {"aws_region": "us-east-1"}},
    "llama2": {"llama2_format": "openai", "upstream_url": URL},
    "mistral": {"mistral_format": "openai"},
    "vllm": {"upstream_url": URL},
}


def of_provider(name: str, **more: Any) -> dict[str, Any]:
    return target(model={"provider": name, "options": OPTIONS.get(name, {})}, **more)


def aliased(*aliases: str | None) -> dict[str, Any]:
    models = [{"provider": "openai", "model_alias": alias} for alias in aliases]
    return advanced(*(target(model=model) for model in models))


SEMANTIC = advanced(
    target(description="code"),
    balancer={"algorithm": "semantic"},
    embeddings={"model": {"name": "text-embedding-3-small", "provider": "openai"}},
    vectordb={"strategy": "redis", "distance_metric": "cosine", "dimensions": 3},
)
ACL = {"allow": [{"match": [{"type": "ip", "values": ["10.0.0.1"]}]}]}

ASKING: dict[str, dict[str, Any]] = {
    **{f"model.provider {name}": of_provider(name) for name in get_args(Provider)},
    **{f"route_type {name}": target(route_type=name) for name in get_args(RouteType)},
    **{f"llm_format {name}": target(llm_format=name) for name in get_args(LlmFormat)},
    **{
        f"route_type {name} of azure": of_provider("azure", route_type=name)
        for name in get_args(RouteType)
    },
    "logging.log_payloads": target(logging={"log_payloads": True}),
    "logging.log_statistics": target(logging={"log_statistics": True}),
    "auth.aws_access_key_id": target(auth={"aws_access_key_id": "AKIA"}),
    "auth.aws_secret_access_key": target(auth={"aws_secret_access_key": "x"}),
    "auth.azure_use_managed_identity": target(auth={"azure_use_managed_identity": True}),
    "auth.gcp_use_service_account": target(auth={"gcp_use_service_account": True}),
    "metadata": advanced(target(metadata={"a": "b"})),
    "several targets": aliased("fast", "fast"),
    "acls": advanced(acls=ACL),
    "balancer.max_fails": advanced(balancer={"max_fails": 3}),
    "balancer.algorithm semantic": SEMANTIC,
}


@pytest.mark.parametrize("name", sorted(ASKING))
def test_every_choice_is_served(name: str) -> None:
    config = ASKING[name]
    Plan(
        parse("ai-proxy-advanced" if "targets" in config else "ai-proxy", config)
    ).check_available()


def test_what_is_refused_for_good_says_why() -> None:
    config = advanced(
        balancer={"algorithm": "lowest-usage", "tokens_count_strategy": "llm-accuracy"}
    )
    with pytest.raises(ConfigError, match="needs the Enterprise plugin ai-llm-as-judge"):
        parse("ai-proxy-advanced", config)
    assert list(REFUSED) == ["balancer.tokens_count_strategy llm-accuracy"]
