"""No failure of ours lets a request through unmodified, and the next one is served."""

from __future__ import annotations

import asyncio
import os
import signal
import struct

import httpx
import pytest

from tests.decks import KEY, config, deck, route
from tests.gateways import GatewayFactory, Protocol, RunningGateway
from tests.recorder import Recorder

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
PROTOCOLS = pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])


async def start(gateway: GatewayFactory, provider: Recorder, protocol: Protocol) -> RunningGateway:
    configuration = config(provider.url("/v1/chat/completions"))
    return await gateway(deck(route("/chat", configuration)), protocol=protocol)


async def chat(running: RunningGateway) -> int:
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.post(f"{running.url}/chat", json=CHAT)).status_code


async def served_again(running: RunningGateway, seconds: float = 20) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        if await chat(running) == 200:
            return True
        await asyncio.sleep(0.1)
    return False


@PROTOCOLS
async def test_a_killed_plugin_server_is_an_error_and_then_comes_back(
    gateway: GatewayFactory, provider: Recorder, protocol: Protocol
) -> None:
    running = await start(gateway, provider, protocol)
    assert await chat(running) == 200
    running.kill_plugin_server()
    status = await chat(running)
    assert status in (200, 500, 502, 503)
    assert await served_again(running)
    assert all(r.header("authorization") == f"Bearer {KEY}" for r in provider.received)


@PROTOCOLS
async def test_killing_it_under_load_lets_nothing_through(
    gateway: GatewayFactory, provider: Recorder, protocol: Protocol
) -> None:
    running = await start(gateway, provider, protocol)
    assert await chat(running) == 200
    requests = [asyncio.create_task(chat(running)) for _ in range(60)]
    await asyncio.sleep(0.02)
    running.kill_plugin_server()
    statuses = await asyncio.gather(*requests)
    assert set(statuses) <= {200, 500, 502, 503}
    assert await served_again(running)
    assert all(r.header("authorization") == f"Bearer {KEY}" for r in provider.received)
    assert all(r.target == "/v1/chat/completions" for r in provider.received)


async def test_one_dead_worker_is_replaced_without_notice(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    running = await start(gateway, provider, "protobuf")
    assert await chat(running) == 200
    before = running.plugin_server_pids()
    os.kill(before[-1], signal.SIGKILL)
    assert await served_again(running)


@pytest.mark.parametrize("mistake", [{"route_type": "llm/v2/chat"}, {"unknown": 1}])
async def test_a_configuration_with_a_mistake_is_not_taken(
    gateway: GatewayFactory, provider: Recorder, mistake: dict[str, object]
) -> None:
    configuration = {**config(provider.url("/x")), **mistake}
    with pytest.raises(Exception, match=next(iter(mistake))):
        await gateway(deck(route("/chat", configuration)))


def hostile() -> list[bytes]:
    """Bytes that are no conversation."""
    return [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 5) + b"\xff" * 5,
        struct.pack("<I", 0) * 100,
        struct.pack("<I", 2**20) + b"\x0a" * 1000,
        bytes(range(256)) * 64,
        b"\xdd\xff\xff\xff\xff",
        b"\x94\x00\x01\xa6plugin\x90",
    ]


@PROTOCOLS
async def test_hostile_bytes_on_the_socket_do_not_disturb_others(
    gateway: GatewayFactory, provider: Recorder, protocol: Protocol
) -> None:
    running = await start(gateway, provider, protocol)
    path = running.plugin_server_socket
    if path is None:
        pytest.skip("the plugin server's socket is out of reach, in a container")
    for content in hostile():
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(content)
        await writer.drain()
        assert await chat(running) == 200
        writer.close()
    assert await chat(running) == 200
