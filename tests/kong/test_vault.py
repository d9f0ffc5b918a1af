"""A secret that its vault has rotated reaches the plugin server without a reload."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from kong_ai_proxy.lua.path import lua_package_path
from tests.decks import config, deck, route
from tests.gateways import GatewayFactory, Plan
from tests.recorder import Recorder

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
VAULT = Path(__file__).parent / "lua"


def plan(kind: str) -> Plan:
    """A Kong that also has the vault of this folder, and looks for rotated secrets every second."""
    path = f"{lua_package_path().removesuffix(';;')};{VAULT}/?.lua;{VAULT}/?/init.lua;;"
    changes = {"vaults": "bundled,testfile", "lua_package_path": path}
    return Plan(kind, env={"KONG_VAULT_ROTATION_INTERVAL": "1"}, changes=changes)


def secret_deck(url: str, folder: Path) -> str:
    configuration: dict[str, Any] = config(url)
    auth = {"header_name": "Authorization", "header_value": "{vault://files/authorization}"}
    vault = {"name": "testfile", "prefix": "files", "config": {"folder": str(folder), "ttl": 1}}
    return deck(route("/chat", {**configuration, "auth": auth}), vaults=[vault])


async def test_a_rotated_secret_is_sent_without_a_reload(
    kong: GatewayFactory, tmp_path: Path
) -> None:
    if kong.kind != "installed":
        pytest.skip("the vault of this test is a Lua file on this machine")
    secret = tmp_path / "authorization"
    secret.write_text("Bearer first")
    async with Recorder() as provider, httpx.AsyncClient(timeout=30) as http:
        running = await kong.kong(plan(kong.kind))
        await running.reload(secret_deck(provider.url("/x"), tmp_path))
        assert (await http.post(f"{running.url}/chat", content=json.dumps(CHAT))).is_success
        assert provider.last.header("authorization") == "Bearer first"
        secret.write_text("Bearer second")
        deadline = time.monotonic() + 30
        while provider.last.header("authorization") != "Bearer second":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
            await http.post(f"{running.url}/chat", content=json.dumps(CHAT))
