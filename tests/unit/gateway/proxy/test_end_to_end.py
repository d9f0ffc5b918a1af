"""A request through all of it: this gateway, the real plugin server in its process, an upstream."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kong_ai_proxy.gateway.managed import ManagedServer
from kong_ai_proxy.gateway.plugins import ServerInfo
from kong_ai_proxy.gateway.server import Gateway
from tests.unit.gateway.proxy.support import Runner, StandIn, Upstream, service

_PLUGIN = """plugins:
    - name: ai-proxy
      config:
        route_type: llm/v1/chat
        auth: {header_name: Authorization, header_value: "{vault://env/token}"}
        model: {provider: openai, name: gpt-4o, options: {upstream_url: "http://localhost:%d/chat"}}
"""


@asynccontextmanager
async def _running(folder: Path, protocol: str, upstream: Upstream) -> AsyncIterator[StandIn]:
    log: list[str] = []
    path = folder / "p.sock"
    command = [sys.executable, "-P", "-m", "kong_ai_proxy", "serve", "--workers", "1"]
    command += ["--socket", str(path), "--protocol", protocol, "--drain", "0"]
    server = ManagedServer("ai-proxy", shlex.join(command), path, log.append)
    await server.start()
    try:
        wire = {"protobuf": "ProtoBuf:1", "msgpack": "MsgPack:1"}[protocol]
        gateway = await Gateway.start(
            '_format_version: "3.0"\n' + service(1, route=_PLUGIN % upstream.port),
            servers={"ai-proxy": ServerInfo("ai-proxy", path, wire)},
            env={"TOKEN": "Bearer sk-secret"},
            log=log.append,
        )
        kong = StandIn(gateway, Runner(), log)
        try:
            yield kong
        finally:
            kong.close_clients()
            await gateway.stop()
    finally:
        await server.stop()


@pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
@pytest.mark.parametrize("words", [1, 5000])
async def test_a_chat_request_reaches_the_provider(
    tmp_path: Path, protocol: str, words: int
) -> None:
    """Short bodies go over the plugin server's socket, those over 8 kB through a file."""
    body = {"messages": [{"role": "user", "content": "word " * words}]}
    data = json.dumps(body).encode()
    async with (
        Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").running() as upstream,
        _running(tmp_path, protocol, upstream) as kong,
    ):
        head = f"POST /r\nContent-Type: application/json\nContent-Length: {len(data)}"
        response = await kong.ask(head, data)
    assert response.status == 200, response.body
    request = upstream.requests[0]
    assert request.line == "POST /chat HTTP/1.1"
    assert request.all("Host") == [f"localhost:{upstream.port}"]
    assert request.all("Authorization") == ["Bearer sk-secret"]
    assert json.loads(request.body) == {**body, "model": "gpt-4o"}
    assert not any("sk-secret" in line for line in kong.log)
