"""Configurations, and tables of workers that share memory of this process."""

from __future__ import annotations

import contextlib
from typing import Any

from kong_ai_proxy import config
from kong_ai_proxy.balancer.memory import Memory, size
from kong_ai_proxy.balancer.states import Table
from kong_ai_proxy.config import AiProxyAdvanced


def target(name: str = "m", **fields: Any) -> dict[str, Any]:
    """A target, `name` its model."""
    auth = {"header_name": "authorization", "header_value": "Bearer key"}
    model = {"provider": "openai", "name": name}
    return {"route_type": "llm/v1/chat", "model": model, "auth": auth, **fields}


def advanced(*targets: dict[str, Any], **balancer: Any) -> AiProxyAdvanced:
    """A configuration of these targets."""
    given = {"targets": list(targets), "balancer": balancer}
    parsed = config.parse("ai-proxy-advanced", given)
    assert isinstance(parsed, AiProxyAdvanced)
    return parsed


def memory(workers: int, records: int = 16) -> Memory:
    """Memory that is all zero."""
    content = memoryview(bytearray(size(workers, records)))
    return Memory(content, workers, contextlib.nullcontext())


def tables(workers: int, records: int = 16) -> list[Table]:
    """What each of several workers uses."""
    shared = memory(workers, records)
    return [Table(shared, slot) for slot in range(workers)]
