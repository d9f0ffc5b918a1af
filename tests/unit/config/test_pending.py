"""What this version does not bring: each entry is asked for by a real configuration."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from kong_ai_proxy.config import parse
from kong_ai_proxy.config.pending import PENDING, pending
from kong_ai_proxy.config.records import LlmFormat, Provider, RouteType
from tests.unit.config.samples import advanced, target

URL = "https://models.example/v1"
OPTIONS = {
    "anthropic": {"anthropic_version": "2023-06-01"},
    "azure": {"azure_instance": "i", "azure_deployment_id": "d"},
    "llama2": {"llama2_format": "openai", "upstream_url": URL},
    "mistral": {"mistral_format": "openai"},
    "vllm": {"upstream_url": URL},
}
BROUGHT = {
    *(f"model.provider {name}" for name in get_args(Provider)),
    *(f"route_type {name}" for name in get_args(RouteType)),
    *(f"llm_format {name}" for name in get_args(LlmFormat)),
    "acls",
    "auth.aws_access_key_id",
    "auth.aws_secret_access_key",
    "auth.azure_use_managed_identity",
    "auth.gcp_use_service_account",
    "logging.log_payloads",
    "logging.log_statistics",
    "metadata",
    *(f"route_type {name} of azure" for name in get_args(RouteType)),
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


def asked_of(config: dict[str, Any]) -> tuple[str, ...]:
    return pending(parse("ai-proxy-advanced" if "targets" in config else "ai-proxy", config))


def test_every_choice_is_brought_or_pending() -> None:
    assert {entry.name for entry in PENDING} == set(ASKING) - BROUGHT


@pytest.mark.parametrize("entry", PENDING, ids=lambda entry: entry.name)
def test_an_entry_is_asked_for_by_its_configuration_alone(entry: Any) -> None:
    assert asked_of(ASKING[entry.name]) == (entry.message,)
    assert entry.message.endswith(" is not available in this version of kong-ai-proxy")


@pytest.mark.parametrize("name", sorted(BROUGHT))
def test_what_is_brought_is_not_pending(name: str) -> None:
    assert asked_of(ASKING[name]) == ()


@pytest.mark.parametrize("aliases", [(None,), ("fast",), ("fast", "powerful")])
def test_targets_that_never_compete_are_no_balancing(aliases: tuple[str | None, ...]) -> None:
    assert asked_of(aliased(*aliases)) == ()


@pytest.mark.parametrize("aliases", [(None, None), ("fast", None), ("a", "b", "a")])
def test_targets_that_may_answer_the_same_request_are(aliases: tuple[str | None, ...]) -> None:
    (message,) = asked_of(aliased(*aliases))
    assert message.startswith("several targets ")
