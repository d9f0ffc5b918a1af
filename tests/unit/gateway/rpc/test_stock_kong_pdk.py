"""A plausibility check: the plugin server of kong-pdk, made for Kong, works with the stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kong_ai_proxy.gateway.context import PluginEntity
from kong_ai_proxy.gateway.plugins import ExternalPlugins, ServerInfo
from tests.unit.gateway.rpc.replay import context

PLUGIN = """
Schema = ({"message": {"type": "string"}},)
version = "0.1.0"
priority = 10

class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        name = kong.request.get_headers(100)["x-req"][0]
        kong.service.set_target("api.example", 8443)
        kong.service.request.set_path("/v1/chat")
        kong.service.request.set_header("x-seen", f"{name} {self.config['message']}")
        if name == "leave":
            kong.response.exit(403, "no", {"x-a": "1"})
"""


@contextlib.asynccontextmanager
async def stock_server(folder: Path) -> AsyncIterator[Path]:
    """`kong-python-pluginserver` in its default mode (threads); its socket."""
    (folder / "tiny.py").write_text(PLUGIN)
    command = Path(sys.executable).with_name("kong-python-pluginserver")
    options = ("--no-lua-style", "-d", str(folder), "-p", str(folder), "--socket-name", "s")
    process = await asyncio.create_subprocess_exec(
        command,
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while not (folder / "s").exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield folder / "s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def plugins(tmp_path: Path) -> AsyncIterator[ExternalPlugins]:
    async with stock_server(tmp_path) as socket:
        found = ExternalPlugins({"tiny": ServerInfo("tiny", socket, "MsgPack:1")})
        yield found
        await found.close()


async def test_stock_plugin_changes_the_request_and_answers(plugins: ExternalPlugins) -> None:
    entity = PluginEntity("tiny", "id", {"message": "hi"}, "key", 1, "ws")
    names = ["one", "two", "leave"]
    contexts = {
        name: context(f"GET /cap/x HTTP/1.1\r\nHost: h\r\nX-Req: {name}\r\n\r\n", {})
        for name in names
    }
    await asyncio.gather(*(plugins.run(entity, "access", ctx) for ctx in contexts.values()))
    for name in ("one", "two"):
        upstream = contexts[name].upstream
        assert contexts[name].exit is None
        assert (upstream.host, upstream.port, upstream.path) == ("api.example", 8443, "/v1/chat")
        assert ("x-seen", f"{name} hi") in upstream.headers
    answer = contexts["leave"].exit
    assert answer is not None
    assert (answer.status, answer.body) == (403, b"no")
    assert ("x-a", "1") in answer.headers
