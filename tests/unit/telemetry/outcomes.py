"""Outcomes in short form."""

from __future__ import annotations

from typing import Any

from kong_ai_proxy.exchange.outcome import Outcome, Tried
from kong_ai_proxy.formats.usage import Usage

TARGET = Tried(
    provider="openai",
    model="gpt-4o",
    route_type="llm/v1/chat",
    scheme="https",
    host="api.openai.com",
    port=443,
    path="/v1/chat/completions",
)

CHAT = Outcome(
    plugin_id="546c3856-24b3-469a-bd6c-f6083babd2cd",
    request_id="f00d",
    consumer="alice",
    provider="openai",
    route_type="llm/v1/chat",
    category="text/generation",
    request_model="gpt-4o",
    response_model="gpt-4o-2024-08-06",
    mode="stream",
    status=200,
    failure=None,
    usage=Usage(
        prompt_tokens=14,
        completion_tokens=21,
        total_tokens=35,
        prompt_details={"cached_tokens": 0, "audio_tokens": 0},
        completion_details={"reasoning_tokens": 4},
    ),
    cost=0.00031,
    latency_ms=633.7,
    first_token_ms=131.9,
    tried=(TARGET,),
    log_statistics=True,
)


def outcome(**changes: Any) -> Outcome:
    """CHAT with `changes`."""
    return CHAT._replace(**changes)
