"""Answers pass as they come: framing, events one by one, backpressure, a client that leaves."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.unit.gateway.proxy.support import (
    SECONDS,
    Connection,
    Message,
    Upstream,
    read_chunk,
    read_head,
    service,
    stand_in,
    until,
)


async def test_each_event_arrives_before_the_next_is_sent() -> None:
    seen = asyncio.Queue[None]()

    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            data = b"data: %d\n\n" % number
            await connection.send(b"%x\r\n%b\r\n" % (len(data), data))
            async with asyncio.timeout(SECONDS):
                await seen.get()  # the client has it
        await connection.send(b"0\r\n\r\n")

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        assert (await read_head(client.reader)).get("Transfer-Encoding") == "chunked"
        for number in range(5):
            assert await read_chunk(client.reader) == b"data: %d\n\n" % number
            seen.put_nowait(None)
        assert await read_chunk(client.reader) == b""


async def test_an_answer_cut_at_every_byte_arrives_whole() -> None:
    whole = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )

    async def answer(_: Message, connection: Connection) -> None:
        for byte in whole:
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        for _ in range(2):
            response = await client.ask("GET /r")
            assert response.body == b"abcde"
            assert response.get("X-Trailer") is None


async def test_an_answer_of_unknown_length_is_chunked_for_http_1_1() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        connection.writer.close()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        for _ in range(2):
            response = await client.ask("GET /r")
            assert response.get("Transfer-Encoding") == "chunked"
            assert response.body == b"to the end"


async def test_a_chunked_answer_ends_with_the_connection_for_http_1_0() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.send(b"GET /r HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head = await read_head(client.reader)
        assert head.get("Transfer-Encoding") is None
        assert await client.rest() == b"ok"


@pytest.mark.parametrize(
    ("request_line", "answer", "length"),
    [
        ("HEAD /r", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "7"),
        ("GET /r", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET /r", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "7"),
    ],
)
async def test_answers_without_a_body(request_line: str, answer: bytes, length: str | None) -> None:
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        for _ in range(2):
            response = await client.ask(request_line)
            assert response.get("Content-Length") == length
            assert response.get("Transfer-Encoding") is None
    assert upstream.connections == 1


async def test_interim_responses_are_swallowed() -> None:
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        assert (await kong.ask("GET /r")).line == "HTTP/1.1 200 OK"


async def test_a_slow_client_slows_the_upstream_down() -> None:
    total = 64 * 1024 * 1024
    sent = 0

    async def answer(_: Message, connection: Connection) -> None:
        nonlocal sent
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await connection.send(b"x" * 65536)
            sent += 65536

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        await read_head(client.reader)
        before = -1
        async with asyncio.timeout(SECONDS):
            while before != sent:  # until it stands still
                before = sent
                await asyncio.sleep(0.1)
        assert sent < total / 2


async def test_a_client_that_leaves_ends_the_upstreams_request() -> None:
    left = asyncio.Event()

    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        await connection.closed()
        left.set()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        await read_head(client.reader)
        client.close()
        async with asyncio.timeout(SECONDS):
            await left.wait()


async def test_a_client_that_leaves_before_the_answer_ends_the_upstreams_request() -> None:
    left = asyncio.Event()

    async def answer(_: Message, connection: Connection) -> None:
        await connection.closed()
        left.set()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        await until(lambda: upstream.requests)
        client.close()
        async with asyncio.timeout(SECONDS):
            await left.wait()
    assert len(upstream.requests) == 1


async def test_an_answer_that_breaks_off_breaks_the_clients_connection() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        connection.writer.close()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        await read_head(client.reader)
        with contextlib.suppress(ConnectionError):
            assert len(await client.rest()) < 100
        assert any("broke off" in line for line in kong.log)


async def test_a_chunked_answer_that_breaks_off_has_no_last_chunk() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        connection.writer.close()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        await read_head(client.reader)
        with contextlib.suppress(ConnectionError):
            assert b"0\r\n\r\n" not in await client.rest()
