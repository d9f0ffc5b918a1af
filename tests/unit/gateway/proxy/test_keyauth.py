"""key-auth: who may pass, with Kong's texts and headers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.declarative import DeclarativeError
from tests.unit.gateway.proxy.support import Upstream, stand_in


def _deck(port: int, config: str = "") -> str:
    return f"""
    services:
    - name: s
      url: http://localhost:{port}
      routes: [{{name: r, paths: [/r]}}]
      plugins:
      - {{name: key-auth, config: {{{config}}}}}
      - {{name: ai-proxy, config: {{}}}}
    consumers:
    - username: alice
      custom_id: c-1
      keyauth_credentials: [{{key: alice-key, id: 601f6ff6-8f5e-44a4-80dd-6799969888f8}}]
    """


async def test_a_key_in_a_header_makes_the_consumer_known() -> None:
    async with Upstream().running() as upstream, stand_in(_deck(upstream.port)) as kong:
        response = await kong.ask(
            """GET /r
            apikey: alice-key
            X-Consumer-Username: eve
            X-Consumer-Groups: admins
            X-Anonymous-Consumer: true"""
        )
    assert response.status == 200
    request = upstream.requests[0]
    assert request.headers[-5:] == [
        ("X-Consumer-Groups", "admins"),
        ("X-Consumer-ID", "b32379d9-3d28-5683-a79c-72139be6e34f"),
        ("X-Consumer-Custom-ID", "c-1"),
        ("X-Consumer-Username", "alice"),
        ("X-Credential-Identifier", "601f6ff6-8f5e-44a4-80dd-6799969888f8"),
    ]
    assert request.get("apikey") == "alice-key"
    assert request.get("X-Anonymous-Consumer") is None


async def test_later_plugins_see_who_it_is() -> None:
    seen: list[tuple[object, object, object]] = []
    async with Upstream().running() as upstream, stand_in(_deck(upstream.port)) as kong:

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            assert ctx.consumer is not None
            assert ctx.credential is not None
            headers = dict(ctx.request_headers or [])
            row = (ctx.consumer["username"], ctx.credential["key"], headers["X-Consumer-Username"])
            seen.append(row)

        kong.runner.action = act
        await kong.ask("GET /r?apikey=alice-key")
    assert seen == [("alice", "alice-key", "alice")]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("GET /r", "No API key found in request"),
        ("GET /r?apikey=", "No API key found in request"),
        ("GET /r?apikey", "No API key found in request"),
        ("GET /r\napikey:", "No API key found in request"),
        ("GET /r\napikey: wrong", "Unauthorized"),
        ("GET /r\napikey: alice-key\napikey: b", "Duplicate API key found"),
        ("GET /r?apikey=alice-key&apikey=b", "Duplicate API key found"),
    ],
)
async def test_who_is_not_known_gets_401(head: str, message: str) -> None:
    async with Upstream().running() as upstream, stand_in(_deck(upstream.port)) as kong:
        response = await kong.ask(head)
        assert kong.runner.ran == []
    assert response.status == 401
    assert f'"message":"{message}"'.encode() in response.body
    assert response.get("WWW-Authenticate") == "Key"
    assert upstream.requests == []


async def test_the_realm_stands_in_the_challenge() -> None:
    async with stand_in(_deck(1, "realm: here")) as kong:
        assert (await kong.ask("GET /r")).get("WWW-Authenticate") == 'Key realm="here"'


async def test_hide_credentials_takes_the_header_away() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(_deck(upstream.port, "hide_credentials: true")) as kong,
    ):
        await kong.ask("GET /r?a=x%20y\napikey: alice-key")
    assert upstream.requests[0].get("apikey") is None
    assert upstream.requests[0].target == "/?a=x%20y"


async def test_hide_credentials_takes_the_argument_away() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(_deck(upstream.port, "hide_credentials: true")) as kong,
    ):
        await kong.ask("GET /r?a=1&apikey=alice-key&b=x%20y&c=%E9")
    assert upstream.requests[0].target == "/?a=1&b=x+y&c=%E9"


async def test_the_first_of_several_names_that_is_there_counts() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(_deck(upstream.port, "key_names: [k1, k2]")) as kong,
    ):
        assert (await kong.ask("GET /r\nk2: alice-key")).status == 200
        assert (await kong.ask("GET /r\nk1: no\nk2: alice-key")).status == 401


async def test_where_keys_may_stand_can_be_limited() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(_deck(upstream.port, "key_in_header: false")) as kong,
    ):
        assert (await kong.ask("GET /r\napikey: alice-key")).status == 401
        assert (await kong.ask("GET /r?apikey=alice-key")).status == 200


async def test_preflight_requests_can_be_let_through() -> None:
    async with (
        Upstream().running() as upstream,
        stand_in(_deck(upstream.port, "run_on_preflight: false")) as kong,
    ):
        assert (await kong.ask("OPTIONS /r")).status == 200
        assert (await kong.ask("GET /r")).status == 401


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        ("keys: [a]", "keys", "unknown field"),
        ("key_names: a", "key_names", "expected an array"),
        ("hide_credentials: 1", "hide_credentials", "expected a boolean"),
        ("anonymous: x", "anonymous", "the stand-in has no anonymous access"),
    ],
)
async def test_a_wrong_configuration_is_refused(config: str, field: str, message: str) -> None:
    with pytest.raises(DeclarativeError) as caught:
        async with stand_in(_deck(1, config)):
            pass
    services = caught.value.fields["services"]
    assert isinstance(services, list)
    plugin: Mapping[str, object] = services[0]["plugins"][0]
    assert plugin == {"config": {field: message}}
