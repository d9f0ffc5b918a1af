"""How often an access event waits for Kong: that is what a plugin server's speed hangs on."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plugin_server import body, context, spooled
from benchmarks.replay import ProtobufReplay
from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.pdk import ExitedError
from kong_ai_proxy.pluginserver import plugins
from kong_ai_proxy.pluginserver.instances import MemoryStore
from kong_ai_proxy.pluginserver.server import PluginServer
from tests.decks import config

Run = Callable[[dict[str, Any], int], Any]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """`await run(configuration, body_size)`: round trips of one access event."""
    with tempfile.TemporaryDirectory(prefix="kap-") as folder:
        listener = socket.socket(socket.AF_UNIX)
        path = Path(folder) / "s.sock"
        listener.bind(str(path))
        listener.listen()
        server = PluginServer(plugins.load(), MemoryStore(), protocol="protobuf")
        serving = asyncio.create_task(server.serve(listener))

        async def measure(configuration: dict[str, Any], size: int) -> int:
            content = body(size)
            kept = spooled(content, Path(folder))

            def request() -> RequestContext:
                return context(kept, len(content))

            entity = PluginEntity("ai-proxy", "id", configuration, "key", 1, "ws")
            replay = ProtobufReplay(entity, request)
            await replay.open(path)
            try:
                return await replay.event()
            finally:
                replay.close()

        yield measure
        server.stop()
        await serving
        await server.close()
        listener.close()


URL = "http://provider.example/v1/chat/completions"


@pytest.mark.parametrize("size", [200, 20_000, 200_000])
async def test_an_access_event_takes_two(run: Run, size: int) -> None:
    configuration = config(URL)
    assert await run(configuration, size) == 2
    configuration["model"]["options"]["max_tokens"] = 1  # the body has to be changed
    assert await run(configuration, size) == 2


async def test_where_nothing_need_be_read_it_takes_one(run: Run) -> None:
    with pytest.raises(ExitedError):  # the very first thing Kong is told is the answer
        await run(config(URL, logging={"log_statistics": True}), 200)
