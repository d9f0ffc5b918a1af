"""The example of realtime sessions over two accounts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from kong_ai_proxy.gateway.dev_deck import dumped
from tests.gateways import GatewayFactory
from tests.integration import examples
from tests.integration.examples import ENV

Socket = aiohttp.ClientWebSocketResponse[bool]


class Account:
    """A provider's side of sessions: says who it is, and waits until the client closes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = 0
        self.seen: list[web.Request] = []
        self.refuses = 0
        """The status of handshakes that are refused."""

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._session)
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _session(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if self.refuses:
            error = {"error": {"message": "too many sessions", "type": "requests"}}
            return web.json_response(error, status=self.refuses)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.open += 1
        try:
            await socket.send_json({"type": "session.created", "session": {"id": self.name}})
            async for _ in socket:
                pass
        finally:
            self.open -= 1
        return socket


class World:
    """The example with its two accounts."""

    def __init__(self, url: str, http: aiohttp.ClientSession, accounts: list[Account]) -> None:
        self.url = url
        self.accounts = accounts
        self._http = http

    async def connect(self) -> tuple[str, Socket]:
        """A new session, and whose it is."""
        socket = await self._http.ws_connect(self.url)
        created = await socket.receive_json(timeout=20)
        return created["session"]["id"], socket


@pytest.fixture
async def world(gateway: GatewayFactory) -> AsyncIterator[World]:
    deck = examples.deck("realtime-balanced.yaml")
    (route,) = examples.routes(deck)
    accounts = [Account("0"), Account("1")]
    async with contextlib.AsyncExitStack() as stack:
        for account, target in zip(accounts, examples.targets(route["plugins"][0]), strict=True):
            examples.point(target, await stack.enter_async_context(account.serve()))
        running = await gateway(dumped(deck), env=ENV)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield World(f"{running.url}{examples.path(route)}?model=voice", http, accounts)


async def test_sessions_go_where_fewer_are_open(world: World) -> None:
    sessions = [await world.connect() for _ in range(6)]
    first = [socket for name, socket in sessions if name == "0"]
    assert len(first) == pytest.approx(3, abs=1)  # workers see each other's after 10 ms
    for socket in first:
        await socket.close()
    async with asyncio.timeout(20):
        while world.accounts[0].open:
            await asyncio.sleep(0.005)
    later = [await world.connect() for _ in range(3)]
    assert [name for name, _ in later].count("0") >= 2
    for seen in (account.seen[0] for account in world.accounts):
        assert "voice" not in seen.query_string
        assert "gpt-realtime" in seen.query_string


async def test_a_refused_handshake_goes_to_the_other_account(world: World) -> None:
    world.accounts[0].refuses = 429
    names = [(await world.connect())[0] for _ in range(4)]
    assert names == ["1"] * 4
    assert world.accounts[0].seen
    world.accounts[1].refuses = 503
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.connect()
    assert refused.value.status in (429, 503)


async def test_a_name_that_is_no_alias_is_refused(world: World) -> None:
    world.url = world.url.replace("voice", "another")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.connect()
    assert refused.value.status == 400
    assert not [seen for account in world.accounts for seen in account.seen]
