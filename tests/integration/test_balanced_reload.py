"""A reload that changes nothing about the targets leaves what is known of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.decks import AUTH, deck, route
from tests.faults import Faulty, Good, Status
from tests.gateways import GatewayFactory, RunningGateway
from tests.unit.relay.clients import HELLO, JSON

BREAKER = {
    "algorithm": "priority",
    "failover_criteria": ["http_503", "non_idempotent"],
    "max_fails": 1,
    "fail_timeout": 600_000,
}


def target(place: Faulty, weight: int, **changes: Any) -> dict[str, Any]:
    """A target; the heaviest is asked first."""
    model = {"provider": "openai", "name": "gpt-4o", "options": {"upstream_url": place.url()}}
    return {
        "route_type": "llm/v1/chat",
        "auth": AUTH,
        "model": model,
        "weight": weight,
        **changes,
    }


async def said(gateway: RunningGateway) -> str:
    """What a chat is answered."""
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{gateway.url}/chat", content=HELLO, headers=JSON)
    assert answer.status_code == 200, answer.text
    return str(json.loads(answer.text)["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"weight": 1}, id="another targets weight"),
        pytest.param({"logging": {"log_statistics": True}}, id="another targets logging"),
    ],
)
async def test_an_open_breaker_stays_open_over_a_reload(
    gateway: GatewayFactory, change: dict[str, Any]
) -> None:
    async with Faulty(Status(503), Good("first")) as first, Faulty(Good("second")) as second:

        def file(**changes: Any) -> str:
            targets = [target(first, 200), target(second, **{"weight": 100, **changes})]
            configuration = {"targets": targets, "balancer": BREAKER}
            return deck(route("/chat", configuration, "ai-proxy-advanced"))

        running = await gateway(file())
        assert await said(running) == "second"
        assert len(first.heads) == 1
        await running.reload(file(**change))
        assert [await said(running) for _ in range(4)] == ["second"] * 4
        assert len(first.heads) == 1
