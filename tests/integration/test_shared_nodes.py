"""Two nodes with one Redis: each a gateway with a plugin server of its own."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from kong_ai_proxy.gateway.plugins import ServerInfo
from kong_ai_proxy.gateway.server import Gateway, query
from tests.decks import AUTH, Json, deck, route
from tests.redis_servers import RedisServer, redis_server

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
PLUGIN_ID = "5e9f4c1a-6b0e-4b5e-9d52-0c9c7c1f3a11"
NAME = "ai-proxy-advanced"
MAX_FAILS = 3
PASSWORD = "gehe1m"
DEADLINE = 20.0


class Provider:
    """Answers chats, each of as many tokens as it is set to; or 503 while it is `down`."""

    def __init__(self) -> None:
        self.down = False
        self.tokens = 10
        self.asked: list[str] = []
        self.used: collections.Counter[str] = collections.Counter()

    async def answer(self, request: web.Request) -> web.Response:
        name = request.path.strip("/")
        self.asked.append(name)
        if self.down:
            return web.json_response({"error": {"message": "down"}}, status=503)
        self.used[name] += self.tokens
        usage = {"prompt_tokens": 0, "completion_tokens": self.tokens, "total_tokens": self.tokens}
        message = {"role": "assistant", "content": "hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})


class Node:
    """A gateway, and the plugin server that it uses."""

    def __init__(self, folder: Path, redis: str) -> None:
        self._socket = folder / "p.sock"
        self._log = folder / "log"
        command = [sys.executable, "-P", "-m", "kong_ai_proxy", "serve", "--workers", "1"]
        with self._log.open("wb") as log:
            self._serve = subprocess.Popen(
                [*command, "--socket", str(self._socket)],
                env={"KONG_AI_PROXY_REDIS": redis},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def start(self, text: str) -> None:
        await until(lambda: "serving on" in self.log, "the plugin server serves")
        info = ServerInfo(NAME, self._socket, "ProtoBuf:1")
        self.gateway = await Gateway.start(
            text,
            servers={NAME: info},
            specs={NAME: await query(info)},
            env={},
            log=lambda _: None,
        )

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def chat(self, path: str = "/chat") -> tuple[int, str]:
        """Status and text of an answer."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.post(self.gateway.url + path, json=CHAT) as answer,
        ):
            return answer.status, await answer.text()

    async def stop(self) -> None:
        await self.gateway.stop()
        self._serve.terminate()
        await asyncio.to_thread(self._serve.wait, DEADLINE)

    def kill(self) -> None:
        self._serve.kill()


def configuration(base: str, *names: str, **balancer: object) -> Json:
    targets = [
        {
            "route_type": "llm/v1/chat",
            "auth": AUTH,
            "model": {
                "provider": "openai",
                "name": name,
                "options": {"upstream_url": f"{base}/{name}"},
            },
            "logging": {"log_statistics": True},
        }
        for name in names
    ]
    return {"targets": targets, "balancer": {"retries": 0, **balancer}}


def whole_deck(base: str) -> str:
    breaker = configuration(
        base,
        "only",
        max_fails=MAX_FAILS,
        fail_timeout=1500,
        failover_criteria=["error", "timeout", "http_503"],
    )
    usage = configuration(base, "one", "two", algorithm="lowest-usage")
    routes = [route("/chat", breaker, NAME), route("/usage", usage, NAME)]
    for number, each in enumerate(routes):  # the same on both nodes, as it is from one database
        each["plugins"][0]["id"] = PLUGIN_ID[:-1] + str(number)
    return deck(*routes)


async def until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], what: str
) -> None:
    limit = time.monotonic() + DEADLINE
    while True:
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return
        assert time.monotonic() < limit, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def upstream(provider: Provider) -> AsyncIterator[str]:
    runner = web.AppRunner(web.Application(), shutdown_timeout=1)
    runner.app.router.add_post("/{name}", provider.answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


Nodes = tuple[Node, Node, Provider, RedisServer]


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    """Two nodes with the same configuration."""
    provider = Provider()
    with redis_server(password=PASSWORD) as redis, tempfile.TemporaryDirectory() as name:
        folders = [Path(name, "1"), Path(name, "2")]
        for folder in folders:
            folder.mkdir()
        first, second = (Node(folder, redis.url) for folder in folders)
        try:
            async with upstream(provider) as base:
                await asyncio.gather(*(node.start(whole_deck(base)) for node in (first, second)))
                yield first, second, provider, redis
                await asyncio.gather(first.stop(), second.stop())
        finally:
            first.kill()
            second.kill()


async def test_two_nodes_share_the_breaker_and_go_on_without_redis(nodes: Nodes) -> None:
    first, second, provider, redis = nodes
    assert [(await node.chat())[0] for node in (first, second)] == [200, 200]

    provider.down = True
    for node in (first, first, second):
        assert (await node.chat())[0] == 503
    for node in (first, second):
        await until(lambda node=node: _is_out(node), "the breaker is open on both nodes")

    provider.down = False
    await until(lambda: _answers(first), "the target is probed and taken back")
    await until(lambda: _answers(second), "the other node takes it back too")

    redis.kill()
    await until(lambda: "goes on by itself" in first.log, "it is noticed that Redis is gone")
    assert [(await node.chat())[0] for node in (first, second)] == [200, 200]
    redis.start()
    await until(lambda: first.log.count("sharing the state") == 2, "Redis is found again")
    for node in (first, second):
        assert PASSWORD not in node.log
        assert "Traceback" not in node.log


async def test_two_nodes_share_the_usage(nodes: Nodes) -> None:
    first, second, provider, _ = nodes

    async def asks(node: Node) -> str:
        assert (await node.chat("/usage"))[0] == 200
        return provider.asked[-1]

    async def asks_its_own() -> bool:
        return await asks(second) == own

    own = await asks(second)
    provider.tokens = 1000
    while not _is_least(provider, own):
        await asks(first)
    provider.tokens = 0
    # By itself it would ask the other target, of which it has used nothing.
    await until(asks_its_own, "the usage of the other node is known")


def _is_least(provider: Provider, name: str) -> bool:
    return len(provider.used) == 2 and min(provider.used, key=provider.used.__getitem__) == name


async def _is_out(node: Node) -> bool:
    status, text = await node.chat()
    return status == 500 and "no available targets" in text


async def _answers(node: Node) -> bool:
    return (await node.chat())[0] == 200
