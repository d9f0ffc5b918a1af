"""Upstreams that are not there, that hang or that talk nonsense; retries as nginx has them."""

from __future__ import annotations

import socket

import pytest

from kong_ai_proxy.gateway.context import Exit, PluginEntity, RequestContext
from tests.unit.gateway.proxy.support import (
    OK,
    Connection,
    Message,
    Upstream,
    matches,
    service,
    stand_in,
)

_PLUGIN = "plugins: [{name: ai-proxy, config: {}}]"


def _closed_port() -> socket.socket:
    """A port that refuses connections for as long as the socket lives."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


async def _hang(_: Message, connection: Connection) -> None:
    await connection.closed()


async def _drop(_: Message, connection: Connection) -> None:
    connection.writer.close()


async def test_no_route() -> None:
    async with stand_in("services: []") as kong:
        response = await kong.ask("GET /x")
    assert response.status == 404
    id_ = response.get("X-Kong-Request-Id")
    text = '{\n  "message":"no Route matched with those values",\n  "request_id":"%s"\n}'
    assert response.body.decode() == text % id_
    assert [name for name, _ in response.headers] == [
        *("Date", "Content-Type", "Content-Length", "Connection"),
        *("X-Kong-Response-Latency", "Server", "X-Kong-Request-Id"),
    ]


async def test_an_error_is_plain_text_for_who_accepts_only_that() -> None:
    async with stand_in("services: []") as kong:
        response = await kong.ask("GET /x\nAccept: text/plain, application/json;q=0.5")
    assert response.get("Content-Type") == "text/plain; charset=utf-8"
    assert matches("no Route matched with those values\nrequest_id: .*\n", response.body.decode())


async def test_head_gets_the_errors_length_without_its_body() -> None:
    async with stand_in("services: []") as kong:
        client = await kong.client()
        for _ in range(2):
            response = await client.ask("HEAD /x")
            assert (response.status, response.get("Content-Length")) == (404, "103")


async def test_a_name_that_does_not_resolve() -> None:
    deck = "services: [{name: s, url: http://ai.invalid, routes: [{paths: [/r]}]}]"
    async with stand_in(deck) as kong:
        response = await kong.ask("GET /r")
    assert response.status == 503
    assert b'"message":"name resolution failed"' in response.body
    assert response.get("X-Kong-Response-Latency") is not None


async def test_a_route_without_a_service() -> None:
    async with stand_in("routes: [{name: r, paths: [/r]}]") as kong:
        response = await kong.ask("GET /r")
    assert response.status == 503
    assert b'"message":"no Service found with those values"' in response.body


async def test_a_route_for_https_only() -> None:
    async with Upstream().running() as upstream:
        deck = service(upstream.port, route="protocols: [https]")
        async with stand_in(deck) as kong:
            response = await kong.ask("GET /r")
    assert (response.status, response.get("Upgrade")) == (426, "TLS/1.2, HTTP/1.1")
    assert upstream.requests == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_connection(method: str) -> None:
    with _closed_port() as sock:
        async with stand_in(service(sock.getsockname()[1])) as kong:
            response = await kong.ask(f"{method} /r\nAccept: application/json")
    assert response.status == 502
    assert b'"An invalid response was received from the upstream server"' in response.body
    assert response.get("X-Kong-Upstream-Latency") is not None
    assert response.get("Via") is not None


@pytest.mark.parametrize(("method", "times"), [("GET", 3), ("PUT", 3), ("POST", 1), ("PATCH", 1)])
async def test_a_read_timeout_is_504_after_all_retries(method: str, times: int) -> None:
    async with Upstream(_hang).running() as upstream:
        deck = service(upstream.port, extra="read_timeout: 40\n  retries: 2")
        async with stand_in(deck) as kong:
            response = await kong.ask(f"{method} /r\nAccept: */*\nContent-Length: 2", b"hi")
    assert response.status == 504
    assert b'"The upstream server is timing out"' in response.body
    assert [message.body for message in upstream.requests] == [b"hi"] * times


async def test_a_lost_connection_is_tried_again() -> None:
    async def answer(message: Message, connection: Connection) -> None:
        if len(upstream.requests) < 3:
            connection.writer.close()
        else:
            await connection.send(OK)

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        assert (await kong.ask("GET /r")).body == b"ok"
    assert len(upstream.requests) == 3


async def test_without_retries_a_lost_connection_is_502() -> None:
    async with (
        Upstream(_drop).running() as upstream,
        stand_in(service(upstream.port, extra="retries: 0")) as kong,
    ):
        assert (await kong.ask("GET /r")).status == 502
    assert len(upstream.requests) == 1


async def test_a_plugin_can_set_timeouts_and_retries() -> None:
    async with (
        Upstream(_hang).running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.timeouts, ctx.upstream.retries = (1000, 1000, 40), 1

        kong.runner.action = act
        assert (await kong.ask("GET /r")).status == 504
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"what is this\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_nonsense_is_502_and_not_tried_again(answer: bytes) -> None:
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        assert (await kong.ask("GET /r")).status == 502
    assert len(upstream.requests) == 1


async def test_an_upstreams_own_error_passes_untouched() -> None:
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy"
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        response = await kong.ask("GET /r")
    assert response.line == "HTTP/1.1 503 Busy"
    assert (response.get("Retry-After"), response.body) == ("3", b"busy")
    assert len(upstream.requests) == 1


async def test_an_ip_address_cannot_become_a_name() -> None:
    async with Upstream().running() as upstream:
        deck = f"""
        services:
        - name: s
          url: http://127.0.0.1:{upstream.port}
          routes: [{{paths: [/r], plugins: [{{name: ai-proxy, config: {{}}}}]}}]
        """
        async with stand_in(deck) as kong:

            async def act(_: PluginEntity, ctx: RequestContext) -> None:
                ctx.upstream.host, ctx.upstream.target_set = "localhost", True

            kong.runner.action = act
            assert (await kong.ask("GET /r")).status == 500
    assert upstream.requests == []


async def test_a_plugins_answer_is_sent_instead() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.response_headers.append(("x-before", "1"))
            ctx.exit = Exit(418, b"\x00\xff", [("content-type", "a/b"), ("x-list", "a")])

        kong.runner.action = act
        response = await kong.ask("GET /r")
    assert (response.status, response.body) == (418, b"\x00\xff")
    assert response.all("Content-Type") == ["a/b"]
    assert (response.get("X-List"), response.get("X-Before")) == ("a", "1")
    assert upstream.requests == []


async def test_a_plugins_204_has_no_body_and_length_0() -> None:
    async with stand_in(service(1, route=_PLUGIN)) as kong:

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.exit = Exit(204)

        kong.runner.action = act
        client = await kong.client()
        for _ in range(2):
            response = await client.ask("GET /r")
            assert (response.status, response.get("Content-Length")) == (204, "0")


async def test_a_failure_of_the_plugins_side_lets_nothing_through() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            raise RuntimeError("boom")

        kong.runner.action = act
        response = await kong.ask("GET /r")
        assert response.status == 500
        assert b'"An unexpected error occurred"' in response.body
        assert any("boom" in line for line in kong.log)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /r\r\n\r\n", 400),
        (b"get /r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /r HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /r HTTP/1.1\r\n\r\n", 400),
        (b"GET /r HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET /r HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /r HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        (b"GET /r HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /r%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /r%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"TRACE /r HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 9000), 414),
        (b"GET /r HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 9000), 400),
        (b"POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (
            b"POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /r HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /r HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_what_is_not_http_is_refused(sent: bytes, status: int) -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.send(sent)
        response = await client.response()
        assert (response.status, response.get("Connection")) == (status, "close")
        assert await client.rest() == b""
    assert upstream.requests == []
