"""The handlers keep kong-pdk's shape: its own plugin server can run them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import orjson

import kong_ai_proxy
from kong_ai_proxy.gateway.plugins import ServerInfo
from kong_ai_proxy.gateway.server import Gateway
from tests.decks import config, deck, route
from tests.recorder import Recorder

PLUGINS = Path(kong_ai_proxy.__file__).parent / "pluginserver" / "plugins"
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


async def start_stock(folder: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("kong-python-pluginserver")),
        *("--no-lua-style", "--gevent", "--plugins-directory", str(PLUGINS)),
        *("--kong-prefix", str(folder), "--socket-name", "s.sock"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20):
        while not (folder / "s.sock").exists():
            assert process.returncode is None
            await asyncio.sleep(0.05)
    return process


async def test_kong_pdks_server_runs_the_handlers(tmp_path: Path) -> None:
    stock = await start_stock(tmp_path)
    servers = {"ai-proxy": ServerInfo("ai-proxy", tmp_path / "s.sock", "MsgPack:1")}
    try:
        async with Recorder() as provider:
            url = provider.url("/v1/chat/completions")
            gateway = await Gateway.start(deck(route("/chat", config(url))), servers=servers)
            async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
                served = await client.post("/chat", json={**CHAT, "user": "é" * 8000})
                refused = await client.post("/chat", json={**CHAT, "model": "other"})
            await gateway.stop()
    finally:
        stock.kill()
        await stock.wait()
    assert served.status_code == 200
    assert orjson.loads(provider.last.body)["model"] == "gpt-4o"
    assert provider.last.target == "/v1/chat/completions"
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": {"message": "cannot use own model - must be: gpt-4o"}},
    )
    assert len(provider.received) == 1
