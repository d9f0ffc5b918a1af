"""kong.conf.d/accel-headers.conf: a provider gives nginx no orders."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.decks import config, deck, route
from tests.gateways import GatewayFactory, Plan
from tests.recorder import Recorder

PIECE = Path(__file__).parents[2] / "kong.conf.d" / "accel-headers.conf"


def settings() -> dict[str, str]:
    lines = [line for line in PIECE.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split(" = ", 1) for line in lines)


async def test_a_provider_cannot_send_a_request_through_kong_again(
    kong: GatewayFactory, provider: Recorder
) -> None:
    running = await kong.kong(Plan(kong.kind, changes=settings()))
    await running.reload(deck(route("/chat", config(provider.url("/x")))))
    provider.answer = provider.answer.replace(b"OK\r\n", b"OK\r\nX-Accel-Redirect: /chat\r\n")
    body = {"messages": [{"role": "user", "content": "hi"}]}
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(f"{running.url}/chat", json=body)
    assert answer.status_code == 200
    assert len(provider.received) == 1
