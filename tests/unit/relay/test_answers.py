"""What of a provider's answer reaches the client."""

from __future__ import annotations

import pytest

from kong_ai_proxy.relay.upstream import KEPT_SECONDS
from tests.recorder import Recorder
from tests.relays import running
from tests.unit.relay.clients import FILES, ask, client, provided, target
from tests.unit.relay.upstreams import (
    CHUNKED,
    LAST_CHUNK,
    SSE,
    Connection,
    Numbers,
    always,
    answer,
    chunk,
    once,
)

ERROR = b'{"error":{"message":"what the provider says","type":"some_error"}}'


@pytest.mark.parametrize(
    "status",
    ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "409 Conflict",
     "422 Unprocessable", "429 Too Many Requests", "499 Odd", "500 Internal Server Error",
     "502 Bad Gateway", "503 Unavailable", "504 Gateway Timeout", "529 Overloaded", "200 OK",
     "201 Created", "207 Multi-Status"],
)  # fmt: skip
async def test_status_body_and_headers_are_kept(status: str) -> None:
    headers = "Content-Type: application/problem+json\r\nRetry-After: 17\r\nX-Request-Id: r-1\r\n"
    async with provided(always(answer(ERROR, status, headers))) as (_, relay):
        found = await ask(relay)
    assert (found.status, found.body, found.complete) == (int(status[:3]), ERROR, True)
    assert found.headers["content-type"] == "application/problem+json"
    assert found.headers["retry-after"] == "17"
    assert found.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_redirects_are_the_clients_to_follow(status: str) -> None:
    async with Recorder() as elsewhere:
        to = f"Location: {elsewhere.url()}\r\n"
        async with provided(always(answer(b"moved", f"{status} Moved", to))) as (_, relay):
            found = await ask(relay)
        assert (found.status, found.headers["location"]) == (int(status), elsewhere.url())
        assert elsewhere.received == []


async def test_what_speaks_for_kong_or_to_nginx_stays_behind() -> None:
    stripped = (
        "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Accel-Redirect: /secret\r\n"
        "X-Accel-Buffering: yes\r\nX-Kong-AI-Proxy-Frame: 3\r\nX-Kong-Upstream-Status: 1\r\n"
        "Connection: X-Named\r\nKeep-Alive: 5\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\n"
        "Upgrade: h2c\r\nContent-Type: application/json\r\n"
    )
    async with provided(always(answer(b"{}", headers=stripped))) as (_, relay):
        found = await ask(relay)
    assert set(found.headers) == {
        "content-length", "content-type", "server", "date", "x-accel-buffering", "x-kong-llm-model",
    }  # fmt: skip
    assert found.headers["x-accel-buffering"] == "no"
    assert found.body == b"{}"


async def test_the_providers_server_and_date_are_kept() -> None:
    headers = "Server: theirs\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    async with provided(always(answer(b"{}", headers=headers))) as (_, relay):
        found = await ask(relay)
    assert found.headers["server"] == "theirs"
    assert found.headers["date"] == "Mon, 01 Jan 2024 00:00:00 GMT"


async def test_header_bytes_that_are_utf8_are_kept_and_others_read_as_latin_1() -> None:
    headers = b"X-Utf8: caf\xc3\xa9\r\nX-Latin: caf\xe9\r\n"
    raw = b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: 2\r\n\r\n{}"
    async with provided(always(raw)) as (_, relay):
        found = await ask(relay)
    assert (found.headers["x-utf8"], found.headers["x-latin"]) == ("café", "café")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_leave_both_connections_usable(status: str) -> None:
    headers = f"HTTP/1.1 {status}\r\nEtag: x\r\n\r\n".encode()
    async with provided(always(headers), FILES) as (upstream, relay), client(relay) as one:
        for _ in range(3):
            await one.ask("GET", "/v1/files/file-1", b"", {})
            found = await one.answer("GET")
            assert (found.status, found.headers["etag"]) == (int(status[:3]), "x")
            assert "transfer-encoding" not in found.headers
        assert upstream.connections == 1


async def test_a_head_request_tells_the_length_and_has_no_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Type: application/pdf\r\n\r\n"
    async with provided(always(head), FILES) as (upstream, relay), client(relay) as one:
        for _ in range(3):
            await one.ask("HEAD", "/v1/files/file-1", b"", {})
            found = await one.answer("HEAD")
            assert found.headers["content-length"] == "12345"
        assert upstream.connections == 1


async def test_an_empty_body() -> None:
    async with provided(always(answer(b""))) as (_, relay), client(relay) as one:
        for _ in range(2):
            await one.ask()
            found = await one.answer()
            assert (found.body, found.headers["content-length"]) == (b"", "0")


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_a_body_that_ends_with_the_connection(version: str) -> None:
    raw = f"{version} 200 OK\r\nContent-Type: application/json\r\n\r\n".encode()
    async with provided(once(raw, b'{"a":', b"1}")) as (_, relay), client(relay) as one:
        for _ in range(2):
            await one.ask()
            found = await one.answer()
            assert (found.body, found.complete, found.keeps) == (b'{"a":1}', True, True)


async def test_chunks_and_trailers() -> None:
    """Trailers are dropped: nothing was promised about them (RFC 9110 section 6.5.1)."""
    body = chunk(b"01234") + b"5;name=value\r\n56789\r\n" + b"0\r\nX-Trailer: t\r\n\r\n"
    async with provided(always(CHUNKED + body)) as (upstream, relay), client(relay) as one:
        for _ in range(3):
            await one.ask()
            found = await one.answer()
            assert (found.body, found.complete, found.keeps) == (b"0123456789", True, True)
            assert "x-trailer" not in found.headers
        assert upstream.connections == 1


async def test_each_event_of_a_stream_leaves_when_it_comes() -> None:
    """The next one is sent only when the client has the one before."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE)
        async for number in seen:
            await connection.send(chunk(b"data: %d\n\n" % number))
        await connection.send(LAST_CHUNK)

    seen = Numbers()
    async with provided(script) as (_, relay), client(relay) as one:
        await one.ask()
        for number in range(50):
            seen.allow(number)
            await one.reader.readuntil(b"data: %d\n\n" % number)
        seen.allow(None)
        assert (await one.reader.readuntil(LAST_CHUNK)).endswith(LAST_CHUNK)


async def test_a_body_cut_at_every_byte_arrives_whole() -> None:
    body = b'{"id":"x","object":"chat.completion","choices":[]}'
    raw = answer(body)
    cuts = iter(range(1, len(raw)))

    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            cut = next(cuts)
            await connection.send(raw[:cut])
            await connection.send(raw[cut:])

    async with provided(script) as (upstream, relay), client(relay) as one:
        for _ in range(1, len(raw)):
            await one.ask()
            assert (await one.answer()).body == body
        assert upstream.connections == 1


async def test_request_headers_that_are_no_utf8_are_refused() -> None:
    """aiohttp would send them without those bytes."""
    async with provided(always(answer(b"{}"))) as (upstream, relay), client(relay) as one:
        found = await ask(relay, headers={"content-type": "application/json", "x-odd": "a\udce9"})
        assert (found.status, found.body) == (
            400,
            b'{"error":{"message":"header x-odd: expected UTF-8"}}',
        )
        assert upstream.heads == []
        await one.ask(headers={"content-type": "application/json", "x-cafe": "café"})
        assert (await one.answer()).status == 200
        assert upstream.heads[-1].header("x-cafe") == "café"


async def test_the_provider_sees_neither_kong_nor_the_client() -> None:
    own = {
        "content-type": "application/json",
        "authorization": "Bearer clients-own",
        "cookie": "session=1",
        "x-forwarded-for": "192.0.2.1",
        "x-consumer-username": "ann",
        "x-kong-ai-proxy-marker": "0" * 32,
        "x-kong-request-id": "1",
        "via": "kong",
        "te": "trailers",
        "accept": "text/event-stream",
    }
    async with provided(always(answer(b"{}"))) as (upstream, relay):
        await ask(relay, headers=own)
        sent = upstream.received[-1]
    assert sent.names == {
        "host", "content-type", "authorization", "accept", "accept-encoding", "content-length",
    }  # fmt: skip
    assert sent.header("authorization") == "Bearer operators-own"


async def test_kept_connections_are_used_again() -> None:
    async with Recorder() as provider, running(target(provider.url("/v1"))) as relay:
        for _ in range(5):
            assert (await ask(relay)).status == 200
        await relay.settled()
        assert relay.idle == 1
        assert KEPT_SECONDS < 60


@pytest.mark.parametrize("raw", [answer(b"{}", headers="Connection: close\r\n"),
                                 b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"])  # fmt: skip
async def test_a_connection_that_the_provider_will_close_is_not_kept(raw: bytes) -> None:
    async with provided(always(raw)) as (upstream, relay), client(relay) as one:
        for number in range(1, 4):
            await one.ask()
            found = await one.answer()
            assert (found.body, found.keeps) == (b"{}", True)
            assert upstream.connections == number
