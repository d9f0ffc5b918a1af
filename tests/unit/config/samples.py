"""Small valid configurations, and the ways the tests look at errors and fields."""

from __future__ import annotations

import re
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

from kong_ai_proxy.config import PLUGINS, ConfigError, parse

FIXTURES = Path(__file__).parent / "fixtures"


def target(**changes: Any) -> dict[str, Any]:
    """One model of OpenAI: also a whole configuration of ai-proxy."""
    return {"route_type": "llm/v1/chat", "model": {"provider": "openai"}, **changes}


def advanced(*targets: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A configuration of ai-proxy-advanced, with one target unless told otherwise."""
    return {"targets": list(targets) or [target()], **changes}


def minimal(plugin: str) -> dict[str, Any]:
    """The smallest valid configuration."""
    return target() if plugin == "ai-proxy" else advanced()


def complete(plugin: str) -> dict[str, Any]:
    """A valid configuration in which every record and array that has required fields is there."""
    options = {
        "cache_write_cost_list": [{"cost": 1, "ttl": "5m"}],
        "context_window_factor": [{"above": "200000", "input_factor": 2, "output_factor": 1.5}],
        "service_tier_factor": [{"factor": 2, "tier": "priority"}],
    }
    model = {"provider": "openai", "options": options}
    if plugin == "ai-proxy":
        return target(model=model)
    rule = {"match": [{"type": "ip", "values": ["10.0.0.1"]}]}
    return advanced(
        target(model=model),
        acls={"allow": [deepcopy(rule)], "deny": [deepcopy(rule)]},
        embeddings={"model": {"name": "text-embedding-3-small", "provider": "openai"}},
        vectordb={
            "strategy": "redis",
            "distance_metric": "cosine",
            "dimensions": 3,
            "redis": {"cluster_nodes": [{}]},
        },
    )


def parts(path: str) -> list[str | int]:
    """`config.targets[].model` as keys, arrays by their first element."""
    words = path.removeprefix("config").replace("[]", ".[0]").strip(".").split(".")
    return [0 if word == "[0]" else word for word in words]


def with_value(config: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of `config` with `value` at `path`, records on the way made as needed."""
    copy = deepcopy(config)
    inside: Any = copy
    way = parts(path)
    for part, following in pairwise(way):
        if isinstance(part, str):
            inside.setdefault(part, [{}] if following == 0 else {})
        inside = inside[part]
    inside[way[-1]] = value
    return copy


def first(path: str) -> str:
    """`config.targets[].weight` as `config.targets[0].weight`."""
    return path.replace("[]", "[0]")


def problems(plugin: str, config: object) -> dict[str, str]:
    """Message by field of what is wrong; empty for a valid configuration."""
    assert plugin in PLUGINS
    try:
        parse(plugin, config)  # type: ignore[arg-type] # wrong ones are the point
    except ConfigError as error:
        return {problem.field: problem.message for problem in error.problems}
    return {}


def fill_in(value: Any) -> Any:
    """A documented configuration with its `${x}` as a reader would fill them in."""
    if isinstance(value, dict):
        return {key: fill_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_in(item) for item in value]
    if isinstance(value, str):
        value = value.replace("${upstream_url}", "http://vllm.example:8000/v1/chat/completions")
        return re.sub(r"\$\{(\w+)\}", r"my-\1", value)
    return value
