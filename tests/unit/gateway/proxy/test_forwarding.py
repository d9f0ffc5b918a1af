"""What the upstream gets, header by header, and what the client gets back."""

from __future__ import annotations

import pytest

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from tests.unit.gateway.proxy.support import Upstream, matches, service, stand_in

VERSION = "kong/3.10.0 (stand-in)"
_PLUGIN = "plugins: [{name: ai-proxy, config: {}}]"


async def test_the_upstream_gets_kongs_headers_in_kongs_order() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, path="/base")) as kong,
    ):
        await kong.ask("GET /r/of%20it?a=1&b\nUser-Agent: x\nAccept: */*", host="Client.Example:99")
    request = upstream.requests[0]
    id_ = request.get("X-Kong-Request-Id") or ""
    assert request.line == "GET /base/of%20it?a=1&b HTTP/1.1"
    assert matches("[0-9a-f]{32}", id_)
    assert request.headers == [
        ("Via", f"1.1 {VERSION}"),
        ("Host", f"localhost:{upstream.port}"),
        ("Connection", "keep-alive"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "client.example"),
        ("X-Forwarded-Port", str(kong.port)),
        ("X-Forwarded-Path", "/r/of%20it"),
        ("X-Forwarded-Prefix", "/r"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Kong-Request-Id", id_),
        ("User-Agent", "x"),
        ("Accept", "*/*"),
    ]


async def test_the_client_gets_kongs_headers_beside_the_upstreams() -> None:
    answer = b"HTTP/1.1 201 Made\r\nContent-Type: a/b\r\nContent-Length: 2\r\nX-Up: 1\r\n\r\nok"
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        response = await kong.ask("GET /r")
    assert response.line == "HTTP/1.1 201 Made"
    assert response.body == b"ok"
    assert [name for name, _ in response.headers] == [
        *("Content-Type", "Content-Length", "Connection", "X-Up", "Server"),
        *("X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency", "Via", "X-Kong-Request-Id"),
    ]
    assert response.get("Via") == f"1.1 {VERSION}"
    assert response.get("Server") == VERSION
    assert response.get("X-Kong-Request-Id") == upstream.requests[0].get("X-Kong-Request-Id")


async def test_hop_by_hop_headers_of_the_client_stay_behind() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        await kong.ask(
            """GET /r
            Connection: keep-alive, X-Gone
            X-Gone: 1
            Keep-Alive: 5
            Proxy-Connection: x
            Proxy: y
            Upgrade: h2c
            X-Stays: 1"""
        )
    names = {name.lower() for name, _ in upstream.requests[0].headers}
    assert "x-stays" in names
    assert not names & {"x-gone", "keep-alive", "proxy-connection", "proxy", "upgrade"}
    assert upstream.requests[0].all("Connection") == ["keep-alive"]


async def test_what_a_client_says_of_itself_is_replaced_or_extended() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        await kong.ask(
            """GET /r
            X-Forwarded-For: 10.1.2.3
            X-Forwarded-Proto: https
            X-Forwarded-Prefix: /p
            X-Real-IP: 9.9.9.9
            X-Kong-Request-Id: mine
            Via: 1.0 fred
            X-Consumer-Username: eve"""
        )
    request = upstream.requests[0]
    assert request.all("X-Forwarded-For") == ["10.1.2.3, 127.0.0.1"]
    assert request.all("X-Forwarded-Proto") == ["http"]
    assert request.all("X-Forwarded-Prefix") == ["/r"]
    assert request.all("X-Real-IP") == ["127.0.0.1"]
    assert request.all("X-Kong-Request-Id") != ["mine"]
    assert request.all("Via") == [f"1.0 fred, 1.1 {VERSION}"]
    assert request.all("X-Consumer-Username") == ["eve"]


async def test_bytes_that_are_not_utf8_pass_both_ways() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Latin: caf\xe9\r\nContent-Length: 1\r\n\r\n\xff"
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        response = await kong.ask("GET /r?q=\xe9&r=%E9\nX-Latin: caf\xe9")
    assert upstream.requests[0].target == "/?q=\xe9&r=%E9"
    assert upstream.requests[0].get("X-Latin") == "caf\xe9"
    assert response.get("X-Latin") == "caf\xe9"
    assert response.body == b"\xff"


async def test_several_values_of_a_header_stay_several_both_ways() -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n"
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        response = await kong.ask("GET /r\nX-Multi: a\nX-Multi: b")
    assert upstream.requests[0].all("X-Multi") == ["a", "b"]
    assert response.all("Set-Cookie") == ["a", "b"]


async def test_hidden_and_hop_by_hop_headers_of_the_upstream_stay_behind() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nServer: mine\r\nVia: 1.1 other\r\nX-Accel-Buffering: no\r\n"
        b"Keep-Alive: timeout=5\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\n"
        b"Upgrade: h2c\r\nTrailer: X-T\r\nX-Kong-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n"
    )
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        response = await kong.ask("GET /r")
    assert response.all("Server") == ["mine"]
    assert response.all("Via") == [f"1.1 other, 1.1 {VERSION}"]
    names = {name.lower() for name, _ in response.headers}
    assert not names & {"x-accel-buffering", "keep-alive", "x-drop", "upgrade", "trailer"}
    assert response.all("X-Kong-Request-Id") != ["theirs"]


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("text/plain", "text/plain; charset=UTF-8"),
        ("text/plain; charset=latin-1", "text/plain; charset=latin-1"),
        ("text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
    ],
)
async def test_kong_adds_a_charset_to_a_few_types(sent: str, received: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: {sent}\r\nContent-Length: 0\r\n\r\n".encode()
    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        assert (await kong.ask("GET /r")).get("Content-Type") == received


async def test_a_bare_question_mark_is_kept() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        await kong.ask("GET /r/x?")
    assert upstream.requests[0].target == "/x?"


async def test_preserve_host() -> None:
    async with Upstream().running() as upstream:
        deck = service(upstream.port, route="preserve_host: true")
        async with stand_in(deck) as kong:
            await kong.ask("GET /r", host="Client.Example:99")
    assert upstream.requests[0].all("Host") == ["Client.Example:99"]


async def test_a_plugin_points_the_request_elsewhere() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(1, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.host, ctx.upstream.port = "localhost", upstream.port
            ctx.upstream.host_header, ctx.upstream.target_set = "localhost", True
            ctx.upstream.method, ctx.upstream.path, ctx.upstream.query = "PUT", "/v1", "k=\udce9"
            ctx.upstream.headers = [("authorization", "Bearer x"), ("x-bytes", "caf\udce9")]
            ctx.upstream.body = b"changed"

        kong.runner.action = act
        await kong.ask("POST /r\nContent-Length: 2\nX-Client: 1", b"hi")
    request = upstream.requests[0]
    assert request.line == "PUT /v1?k=\xe9 HTTP/1.1"
    assert request.get("Host") == "localhost"
    assert request.headers[-3:] == [
        ("Content-Length", "7"),
        ("authorization", "Bearer x"),
        ("x-bytes", "caf\xe9"),
    ]
    assert request.body == b"changed"


async def test_a_plugins_query_cannot_begin_another_request() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.query = "a=b c\r\nEvil: 1"

        kong.runner.action = act
        assert (await kong.ask("GET /r")).status == 200
    assert upstream.requests[0].target == "/?a=b%20c%0D%0AEvil:%201"
    assert upstream.requests[0].get("Evil") is None


async def test_a_host_header_set_by_a_plugin_wins() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.host_header = "api.example"

        kong.runner.action = act
        await kong.ask("GET /r")
    assert upstream.requests[0].all("Host") == ["api.example"]


async def test_headers_set_in_access_stand_beside_the_upstreams() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Both: up\r\nContent-Length: 0\r\n\r\n"
    async with (
        Upstream(answer).running() as upstream,
        stand_in(service(upstream.port, route=_PLUGIN)) as kong,
    ):

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.response_headers += [("x-both", "access"), ("x-only", "caf\udce9")]

        kong.runner.action = act
        response = await kong.ask("GET /r")
    assert response.all("X-Both") == ["access", "up"]
    assert response.all("X-Only") == ["caf\xe9"]


async def test_two_requests_share_a_connection_on_both_sides() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        for _ in range(2):
            assert (await client.ask("GET /r")).body == b"ok"
    assert len(upstream.requests) == 2
    assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_order() -> None:

    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r/1")
        await client.request("GET /nothing")
        await client.request("GET /r/2")
        assert [(await client.response()).status for _ in range(3)] == [200, 404, 200]
    assert [message.target for message in upstream.requests] == ["/1", "/2"]


async def test_connection_close_is_honoured() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        response = await client.ask("GET /r\nConnection: close")
        assert response.get("Connection") == "close"
        assert await client.rest() == b""


async def test_http_1_0_closes_unless_asked_to_keep() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.send(b"GET /r HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.response()).get("Connection") == "keep-alive"
        await client.send(b"GET /r HTTP/1.0\r\n\r\n")
        assert (await client.response()).get("Connection") == "close"
        assert await client.rest() == b""
    assert upstream.requests[0].get("X-Forwarded-Host") == "kong"
