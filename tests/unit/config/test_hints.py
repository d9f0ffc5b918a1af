"""What is odd about a valid configuration of ai-proxy-advanced."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import parse
from kong_ai_proxy.config.hints import hints
from tests.unit.config.samples import advanced, target

SEMANTIC: dict[str, dict[str, Any]] = {
    "embeddings": {"model": {"name": "text-embedding-3-small", "provider": "openai"}},
    "vectordb": {"strategy": "redis", "distance_metric": "cosine", "dimensions": 3},
}


def two(route_type: str = "llm/v1/chat", **balancer: Any) -> dict[str, Any]:
    targets = (target(route_type=route_type), target(route_type=route_type))
    return advanced(*targets, balancer=balancer)


def one(**balancer: Any) -> dict[str, Any]:
    return advanced(balancer=balancer)


def semantic(*descriptions: str) -> dict[str, Any]:
    targets = [target(description=each) for each in descriptions]
    return advanced(*targets, balancer={"algorithm": "semantic"}, **SEMANTIC)


def header_rule(name: str, kind: str = "header") -> dict[str, Any]:
    key = name if kind == "header" else None
    return advanced(acls={"allow": [{"match": [{"type": kind, "key": key, "values": ["bob"]}]}]})


ODD = [
    (one(retries=2), "config.balancer.retries", "no effect with one target"),
    (two("llm/v1/files"), "config.targets", "a list shows one target's"),
    (one(max_fails=3, fail_timeout=500), "config.balancer.max_fails", "get a 500 for 500 ms"),
    (
        two(failover_criteria=["error", "http_429", "http_503"]),
        "config.balancer.failover_criteria",
        "no effect of http_429, http_503: a POST",
    ),
    (
        two(failover_criteria=["invalid_header"]),
        "config.balancer.failover_criteria",
        "no effect of invalid_header: a POST",
    ),
    (semantic("CATCHALL", "CATCHALL"), "config.targets[0].description", "no prompt is compared"),
    (semantic("code", "catchall"), "config.targets[1].description", "only CATCHALL in capitals"),
    (
        semantic("code", "CATCHALL") | {"vectordb": {**SEMANTIC["vectordb"], "threshold": 70}},
        "config.vectordb.threshold",
        "cosine distances are 0 to 2",
    ),
    (
        two(algorithm="consistent-hashing"),
        "config.balancer.hash_on_header",
        "name one that yours send",
    ),
    (
        advanced(target(metadata={"max_tokens": 512})),
        "config.targets[0].metadata.max_tokens",
        "open-source Kong takes texts only",
    ),
    (header_rule("X-Consumer-Username"), "config.acls.allow[0].match[0].key", "use type consumer"),
]
FINE = [
    one(),
    one(retries=0),
    one(retries=5),
    one(failover_criteria=["http_500"]),
    two(retries=2, max_fails=3),
    two(failover_criteria=["error", "timeout"]),
    two(failover_criteria=["http_500", "non_idempotent"]),
    two("video/v1/videos/generations", failover_criteria=["http_500"]),
    two("realtime/v1/realtime", failover_criteria=["http_500"]),
    semantic("CATCHALL", "code"),
    header_rule("X-Team"),
    header_rule("", "consumer"),
    target(),
]


@pytest.mark.parametrize(("config", "field", "message"), ODD)
def test_what_has_no_effect_or_a_surprising_one_is_a_warning(
    config: dict[str, Any], field: str, message: str
) -> None:
    ((place, text),) = hints(parse("ai-proxy-advanced", config))
    assert place == field
    assert message in text


@pytest.mark.parametrize("config", FINE)
def test_what_makes_sense_is_none(config: dict[str, Any]) -> None:
    plugin = "ai-proxy-advanced" if "targets" in config else "ai-proxy"
    assert list(hints(parse(plugin, config))) == []


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "numpy" else name)
    (found,) = hints(parse("ai-proxy-advanced", semantic("code", "CATCHALL")))
    assert found[0] == "config.vectordb.strategy"
    assert "needs numpy, which is not installed: pip install 'kong-ai-proxy[redis]'" in found[1]
