"""WebSocket: the handshake as Kong forwards it, then bytes untouched in both directions."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, WSMsgType, web

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from tests.unit.gateway.proxy.support import (
    SECONDS,
    Connection,
    Message,
    Upstream,
    read_head,
    service,
    stand_in,
)

_HANDSHAKE = """GET /r/realtime?model=x
Connection: Upgrade
Upgrade: WebSocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Protocol: realtime, openai-beta.v1"""
_SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: realtime\r\n\r\n"
)


async def _echo(_: Message, connection: Connection) -> None:
    await connection.send(_SWITCHED)
    while data := await connection.reader.read(65536):
        await connection.send(data)
    connection.writer.close()


async def test_the_handshake_passes_with_its_subprotocols() -> None:
    async with Upstream(_echo).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        response = await client.ask(_HANDSHAKE)
    request = upstream.requests[0]
    assert request.target == "/realtime?model=x"
    assert request.all("Connection") == ["keep-alive, Upgrade"]
    assert request.all("Upgrade") == ["websocket"]
    assert request.all("Sec-WebSocket-Protocol") == ["realtime, openai-beta.v1"]
    assert response.line == "HTTP/1.1 101 Switching Protocols"
    assert response.all("Connection") == ["upgrade"]
    assert response.all("Upgrade") == ["websocket"]
    assert response.get("Sec-WebSocket-Protocol") == "realtime"
    assert response.get("Content-Length") is None


_FRAGMENTS = b"\x01\x82\0\0\0\0he" + b"\x89\x80\0\0\0\0" + b"\x80\x83\0\0\0\0llo"


@pytest.mark.parametrize("data", [bytes(range(256)) * 1000, _FRAGMENTS])
async def test_bytes_pass_untouched_in_both_directions(data: bytes) -> None:
    async with Upstream(_echo).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.ask(_HANDSHAKE)
        await client.send(data)
        async with asyncio.timeout(SECONDS):
            assert await client.reader.readexactly(len(data)) == data


async def test_bytes_sent_with_the_handshake_are_not_lost() -> None:
    async with Upstream(_echo).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request(_HANDSHAKE, b"early")
        await read_head(client.reader)
        async with asyncio.timeout(SECONDS):
            assert await client.reader.readexactly(5) == b"early"


async def test_what_one_side_said_before_it_closed_still_arrives() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(_SWITCHED + b"last words")
        connection.writer.close()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.ask(_HANDSHAKE)
        assert await client.rest() == b"last words"


async def test_a_client_that_leaves_closes_the_upstream() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(_SWITCHED)
        heard.set_result(await connection.reader.read())

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.ask(_HANDSHAKE)
        await client.send(b"bye")
        client.close()
        async with asyncio.timeout(SECONDS):
            assert await heard == b"bye"


async def test_a_refused_handshake_passes_with_status_and_body() -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        response = await client.ask(_HANDSHAKE)
        assert (response.status, response.body) == (403, b"no")
        assert (await client.ask("GET /r")).status == 403


async def test_an_idle_tunnel_ends_with_the_read_timeout() -> None:
    async with (
        Upstream(_echo).running() as upstream,
        stand_in(service(upstream.port, extra="read_timeout: 50")) as kong,
    ):
        client = await kong.client()
        await client.ask(_HANDSHAKE)
        assert await client.rest() == b""


async def test_a_real_client_and_server_exchange_messages_and_a_close_code() -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        async for message in socket:
            assert message.type == WSMsgType.TEXT
            if message.data == "close":
                await socket.close(code=4321, message=b"enough")
            else:
                await socket.send_str(f"echo:{message.data}")
        return socket

    app = web.Application()
    app.router.add_get("/realtime", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with stand_in(service(port)) as kong, ClientSession() as session:
            url = f"{kong.gateway.url}/r/realtime"
            async with session.ws_connect(url, protocols=("realtime",)) as socket:
                assert socket.protocol == "realtime"
                await socket.send_str("x" * 100_000)
                assert await socket.receive_str() == "echo:" + "x" * 100_000
                await socket.send_str("close")
                closing = await socket.receive()
                assert (closing.type, closing.data) == (WSMsgType.CLOSE, 4321)
    finally:
        await runner.cleanup()


async def test_plugins_run_on_the_handshake() -> None:
    deck = "plugins: [{name: ai-proxy, config: {}}]"
    async with (
        Upstream(_echo).running() as upstream,
        stand_in(service(upstream.port, route=deck)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.headers.append(("authorization", "Bearer x"))

        kong.runner.action = act
        client = await kong.client()
        assert (await client.ask(_HANDSHAKE)).status == 101
    assert upstream.requests[0].get("authorization") == "Bearer x"
