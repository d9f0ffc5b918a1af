"""Keys stay out of what Kong's own log plugins write."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.decks import config, deck, route
from tests.gateways import GatewayFactory
from tests.recorder import Recorder

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
SECRET = "sk-never-in-a-log"


async def record(
    kong: GatewayFactory, provider: Recorder, folder: Path, auth: dict[str, str]
) -> dict[str, Any]:
    """What file-log writes about one request."""
    file = folder / "log.json"
    ai_route = route("/chat", config(provider.url("/x"), auth=auth))
    ai_route["plugins"].append({"name": "file-log", "config": {"path": str(file)}})
    running = await kong(deck(ai_route))
    if running.kind != "installed":
        pytest.skip("the log file is inside the container")
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{running.url}/chat?page=1", json=CHAT)
    assert answer.status_code == 200
    assert SECRET in repr(provider.last)
    async with asyncio.timeout(10):
        while not file.exists() or not file.read_text().endswith("\n"):
            await asyncio.sleep(0.05)
    assert SECRET not in file.read_text()
    assert SECRET not in running.log()
    line: dict[str, Any] = json.loads(file.read_text())
    return line


async def test_a_key_in_a_header(kong: GatewayFactory, provider: Recorder, tmp_path: Path) -> None:
    auth = {"header_name": "X-Api-Key", "header_value": SECRET}
    line = await record(kong, provider, tmp_path, auth)
    assert line["request"]["headers"]["x-api-key"] == "REDACTED"


async def test_a_key_in_the_query_is_known_to_the_relay_only(
    kong: GatewayFactory, provider: Recorder, tmp_path: Path
) -> None:
    auth = {"param_name": "key", "param_value": SECRET, "param_location": "query"}
    line = await record(kong, provider, tmp_path, auth)
    assert provider.last.target == f"/x?key={SECRET}&page=1"
    assert line["request"]["querystring"] == {"page": "1"}
    assert line["upstream_uri"] == "/chat?page=1"
    assert line["tries"][0]["port"] != provider.port
