"""Clients' bodies: kept in memory or in a private file, sent on whole or as they come."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from kong_ai_proxy.gateway.context import Body, PluginEntity, RequestContext
from tests.unit.gateway.proxy.support import (
    OK,
    SECONDS,
    Connection,
    Message,
    StandIn,
    Upstream,
    read_body,
    read_chunk,
    service,
    stand_in,
    until,
)

_PLUGIN = "plugins: [{name: ai-proxy, config: {}}]"


def _watch(kong: StandIn) -> list[tuple[Path | None, bytes, int]]:
    """What the plugin finds of each body: its file, its content and the file's mode."""
    seen: list[tuple[Path | None, bytes, int]] = []

    async def act(_: PluginEntity, ctx: RequestContext) -> None:
        body = ctx.client.body
        await body.load()
        if body.file is None:
            seen.append((None, body.content, 0))
        else:
            seen.append((body.file, body.file.read_bytes(), body.file.stat().st_mode & 0o777))

    kong.runner.action = act
    return seen


async def test_a_body_of_8_kb_stays_in_memory() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):
        seen = _watch(kong)
        await kong.ask("POST /r\nContent-Length: 8192", b"x" * 8192)
    assert seen == [(None, b"x" * 8192, 0)]
    assert upstream.requests[0].body == b"x" * 8192


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_larger_body_goes_into_a_private_file_that_goes_with_the_request(
    chunked: bool,
) -> None:
    content = bytes(range(256)) * 33
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):
        seen = _watch(kong)
        if chunked:
            encoded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
            await kong.ask("POST /r\nTransfer-Encoding: chunked", encoded)
        else:
            await kong.ask(f"POST /r\nContent-Length: {len(content)}", content)
        file, found, mode = seen[0]
        assert file is not None
        assert (found, mode) == (content, 0o600)
        assert file.parent.stat().st_mode & 0o777 == 0o700
        await until(lambda: not file.exists())
    assert not file.parent.exists()
    assert upstream.requests[0].body == content
    assert upstream.requests[0].all("Content-Length") == [str(len(content))]
    assert upstream.requests[0].get("Transfer-Encoding") is None


async def test_an_upload_that_breaks_off_leaves_no_file_and_reaches_no_one() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):
        directory = kong.gateway._proxy._spool.directory
        client = await kong.client()
        await client.request("POST /r\nContent-Length: 100000", b"x" * 20000)
        await until(lambda: list(directory.iterdir()))
        client.close()
        await until(lambda: not list(directory.iterdir()))
        assert kong.runner.ran == []
    assert upstream.requests == []


async def test_a_retry_sends_the_whole_body_again() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        if len(upstream.requests) < 2:
            connection.writer.close()
        else:
            await connection.send(OK)

    body = b"y" * 20000
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        await kong.ask(f"PUT /r\nContent-Length: {len(body)}", body)
    assert [message.body for message in upstream.requests] == [body, body]


@pytest.mark.parametrize(
    ("head", "length"),
    [("POST /r", None), ("POST /r\nContent-Length: 0", "0"), ("GET /r", None)],
)
async def test_a_body_that_is_not_there(head: str, length: str | None) -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        await kong.ask(head)
    assert upstream.requests[0].get("Content-Length") == length


async def test_expect_100_continue_is_answered_when_the_body_is_wanted() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("POST /r\nExpect: 100-continue\nContent-Length: 2")
        assert (await client.response(head_only=True)).status == 100
        await client.send(b"hi")
        assert (await client.response()).status == 200
    assert upstream.requests[0].body == b"hi"
    assert upstream.requests[0].get("Expect") is None


async def test_expect_100_continue_is_not_answered_when_the_request_is_refused() -> None:
    async with stand_in("services: []") as kong:
        client = await kong.client()
        await client.request("POST /x\nExpect: 100-continue\nContent-Length: 2")
        response = await client.response()
        assert (response.status, response.get("Connection")) == (404, "close")


async def test_the_next_request_follows_a_body_that_nobody_read() -> None:
    async with stand_in("services: []") as kong:
        client = await kong.client()
        for _ in range(2):
            assert (await client.ask("POST /x\nContent-Length: 9000", b"x" * 9000)).status == 404


async def test_by_default_the_upstream_sees_nothing_before_the_whole_body() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("POST /r\nContent-Length: 4", b"ab")
        directory = kong.gateway._proxy._spool.directory
        assert directory.exists()
        assert upstream.connections == 0
        await client.send(b"cd")
        assert (await client.response()).status == 200
    assert upstream.requests[0].body == b"abcd"


@pytest.mark.parametrize("chunked", [False, True])
async def test_request_buffering_off_sends_each_piece_as_it_comes(chunked: bool) -> None:
    pieces = asyncio.Queue[bytes]()

    async def answer(message: Message, connection: Connection) -> None:
        for _ in range(3):
            if chunked:
                pieces.put_nowait(await read_chunk(connection.reader))
            else:
                pieces.put_nowait(await connection.reader.readexactly(2))
        if chunked:
            assert await read_chunk(connection.reader) == b""
        await connection.send(OK)

    upstream = Upstream(answer, read_body=False)
    async with upstream.running():
        deck = service(upstream.port, route="request_buffering: false")
        async with stand_in(deck) as kong:
            client = await kong.client()
            framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 6"
            await client.request(f"POST /r\n{framing}")
            for piece in (b"ab", b"cd", b"ef"):
                await client.send(b"2\r\n%b\r\n" % piece if chunked else piece)
                async with asyncio.timeout(SECONDS):
                    assert await pieces.get() == piece
            if chunked:
                await client.send(b"0\r\n\r\n")
            assert (await client.response()).status == 200


async def test_a_plugin_may_wait_for_a_body_that_would_stream() -> None:
    async with Upstream().running() as upstream:
        deck = service(upstream.port, route=f"request_buffering: false\n    {_PLUGIN}")
        async with stand_in(deck) as kong:
            seen = _watch(kong)
            client = await kong.client()
            await client.request("POST /r\nContent-Length: 4", b"ab")
            await until(lambda: kong.runner.ran)
            await client.send(b"cd")
            assert (await client.response()).status == 200
    assert seen == [(None, b"abcd", 0)]
    assert upstream.requests[0].body == b"abcd"


async def test_a_body_that_fails_while_a_plugin_waits_reaches_no_one() -> None:
    """Even if the plugin's side takes the failure for its own and goes on, as MsgPack:1 does."""
    async with Upstream().running() as upstream:
        deck = service(upstream.port, route=f"request_buffering: false\n    {_PLUGIN}")
        async with stand_in(deck) as kong:

            async def act(_: PluginEntity, ctx: RequestContext) -> None:
                with contextlib.suppress(Exception):
                    await ctx.client.body.load()

            kong.runner.action = act
            response = await kong.ask("POST /r\nTransfer-Encoding: chunked", b"2\r\nhi\r\nzz\r\n")
    assert response.status == 400
    assert upstream.requests == []


async def test_a_streamed_upload_is_not_sent_twice() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        connection.writer.close()

    upstream = Upstream(answer)
    async with upstream.running():
        deck = service(upstream.port, route="request_buffering: false")
        async with stand_in(deck) as kong:
            response = await kong.ask("PUT /r\nContent-Length: 2", b"hi")
    assert response.status == 502
    assert len(upstream.requests) == 1


async def test_an_answer_before_the_end_of_the_upload_reaches_the_client() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    upstream = Upstream(answer, read_body=False)
    async with upstream.running():
        deck = service(upstream.port, route="request_buffering: false")
        async with stand_in(deck) as kong:
            client = await kong.client()
            await client.request("POST /r\nContent-Length: 1000000", b"x" * 1000)
            response = await client.response()
    assert (response.status, response.body) == (413, b"big")


async def test_a_streamed_upload_that_breaks_off_breaks_the_upstreams_request() -> None:
    ended = asyncio.Event()

    async def answer(message: Message, connection: Connection) -> None:
        with pytest.raises(asyncio.IncompleteReadError):
            await read_body(connection.reader, message)
        ended.set()

    upstream = Upstream(answer, read_body=False)
    async with upstream.running():
        deck = service(upstream.port, route="request_buffering: false")
        async with stand_in(deck) as kong:
            client = await kong.client()
            await client.request("POST /r\nContent-Length: 100", b"x")
            await until(lambda: upstream.requests)
            client.close()
            async with asyncio.timeout(SECONDS):
                await ended.wait()


async def test_load_is_harmless_where_nothing_is_pending() -> None:
    body = Body(b"x")
    await body.load()
    assert body.content == b"x"
