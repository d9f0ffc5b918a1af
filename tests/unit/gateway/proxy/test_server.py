"""The gateway as a whole: start, reload, Admin API, stop."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import httpx
import pytest

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.declarative import DeclarativeError
from kong_ai_proxy.gateway.listener import ClientExchange
from kong_ai_proxy.gateway.plugins import ServerInfo
from kong_ai_proxy.gateway.server import BANNER, DumpError, Gateway, parse_dump, query
from tests.unit.gateway.proxy.support import (
    SECONDS,
    Connection,
    Message,
    Upstream,
    service,
    spec,
    stand_in,
    until,
)

_VERSION = '_format_version: "3.0"\n'
_PLUGIN = "plugins: [{name: ai-proxy, config: {mark: %s}}]"


async def test_it_says_at_start_what_it_is_not() -> None:
    async with stand_in("services: []") as kong:
        assert kong.log == [f"[notice] {BANNER}"] or BANNER in kong.log[-1]
    assert "not for production" in BANNER


async def test_a_reload_takes_effect_at_once() -> None:
    async with Upstream().running() as upstream, stand_in("services: []") as kong:
        client = await kong.client()
        assert (await client.ask("GET /r")).status == 404
        await kong.gateway.reload(_VERSION + service(upstream.port))
        assert (await client.ask("GET /r")).status == 200


async def test_a_request_under_way_finishes_with_the_old_configuration() -> None:
    go = asyncio.Event()
    marks: list[object] = []

    async def act(entity: PluginEntity, ctx: RequestContext) -> None:
        async with asyncio.timeout(SECONDS):
            await go.wait()
        marks.append(entity.config["mark"])

    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, path="/old", route=_PLUGIN % "old")) as kong,
    ):
        kong.runner.action = act
        client = await kong.client()
        await client.request("GET /r")
        await until(lambda: kong.runner.ran)
        await kong.gateway.reload(
            _VERSION + service(upstream.port, path="/new", route=_PLUGIN % "new")
        )
        go.set()
        assert (await client.response()).status == 200
        await client.ask("GET /r")
    assert marks == ["old", "new"]
    assert [message.target for message in upstream.requests] == ["/old", "/new"]


async def test_a_reload_raises_seq_and_nothing_else() -> None:
    deck = service(1, route=_PLUGIN % "x")
    async with stand_in(deck) as kong:
        await kong.ask("GET /r")
        await kong.gateway.reload(_VERSION + deck)
        await kong.ask("GET /r")
        first, second = kong.runner.ran
    assert second.seq > first.seq
    assert (second.id, second.key, second.config) == (first.id, first.key, first.config)


async def test_a_refused_reload_keeps_the_old_configuration() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        with pytest.raises(DeclarativeError, match=r"declarative configuration:2: services\[0\]"):
            await kong.gateway.reload(_VERSION + "services: [{name: s}]")
        with pytest.raises(DeclarativeError, match="not YAML"):
            await kong.gateway.reload(_VERSION + "{")
        assert (await kong.ask("GET /r")).status == 200


async def test_a_file_and_its_variables(tmp_path: Path) -> None:
    async with Upstream().running() as upstream, stand_in("services: []") as kong:
        path = tmp_path / "kong.yml"
        path.write_text(_VERSION + service(upstream.port, path='${{ env "DECK_BASE" }}'))
        with pytest.raises(DeclarativeError, match=r"kong\.yml:\d+: .*DECK_BASE is not set"):
            await kong.gateway.reload(path)
    async with stand_in("services: []", env={"DECK_BASE": "/base"}) as kong:
        await kong.gateway.reload(path)
        assert [entity["path"] for entity in kong.gateway.entities("services")] == ["/base"]


async def test_warnings_are_kept_and_logged() -> None:
    async with stand_in("upstreams: []") as kong:
        (warning,) = kong.gateway.warnings
        assert warning.startswith("upstreams: ")
        assert f"[warn] {warning}" in kong.log


async def test_post_config_reloads() -> None:
    async with Upstream().running() as upstream, stand_in("services: []") as kong:
        async with httpx.AsyncClient() as client:
            url = f"{kong.gateway.admin_url}/config"
            good = await client.post(url, data={"config": _VERSION + service(upstream.port)})
            bad = await client.post(url, data={"config": _VERSION + "services: [{name: s}]"})
        assert good.status_code == 201
        assert bad.status_code == 400
        assert bad.json()["fields"] == {"services": [{"host": "required field missing"}]}
        assert (await kong.ask("GET /r")).status == 200


async def test_the_admin_api_shows_plugins_without_secrets() -> None:
    deck = "plugins: [{name: ai-proxy, config: {auth: {key: '{vault://env/k}'}}}]"
    async with (
        stand_in(deck, env={"K": "secret"}) as kong,
        httpx.AsyncClient() as client,
    ):
        response = await client.get(f"{kong.gateway.admin_url}/plugins")
    assert "secret" not in response.text
    assert response.json()["data"][0]["config"]["auth"] == {"key": "{vault://env/k}"}


async def test_a_taken_port_is_an_os_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await Gateway.start(_VERSION + "services: []", port=taken.getsockname()[1])


async def test_each_small_piece_leaves_at_once() -> None:
    """asyncio sets TCP_NODELAY on accepted sockets; some ways of making the listener lose it."""

    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        noted: list[int] = []
        handle = kong.gateway._proxy.handle

        async def watch(client: ClientExchange) -> None:
            sock = client.stream.transport.get_extra_info("socket")
            noted.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await handle(client)

        kong.gateway._listener._handler = watch
        await kong.ask("GET /r")
        assert noted
        assert all(noted)


async def test_stop_ends_connections_under_way() -> None:
    async def answer(_: Message, connection: Connection) -> None:
        await connection.closed()

    async with Upstream(answer).running() as upstream, stand_in(service(upstream.port)) as kong:
        client = await kong.client()
        await client.request("GET /r")
        await until(lambda: upstream.requests)
        await kong.gateway.stop()
        assert await client.rest() == b""


async def test_both_plugins_of_a_route_run_in_order() -> None:
    specs = [spec("ai-proxy"), spec("ai-proxy-advanced")]
    deck = "plugins: [{name: ai-proxy, config: {}}, {name: ai-proxy-advanced, config: {}}]"
    async with (
        Upstream().running() as upstream,
        stand_in(service(upstream.port, route=deck), specs=specs) as kong,
    ):
        await kong.ask("GET /r")
        assert [entity.name for entity in kong.runner.ran] == ["ai-proxy-advanced", "ai-proxy"]


@pytest.mark.parametrize("name", ["ai-proxy", "ai-proxy-advanced"])
async def test_a_plugin_is_asked_for_its_schema_as_kong_asks(name: str) -> None:
    found = await query(ServerInfo(name, Path("/nowhere.sock"), "ProtoBuf:1"))
    assert (found.name, found.priority) == (name, 770)
    assert found.schema.document["name"] == name


async def test_a_plugin_that_does_not_exist() -> None:
    with pytest.raises(DumpError, match="no-such-plugin"):
        await query(ServerInfo("no-such-plugin", Path("/nowhere.sock"), "ProtoBuf:1"))


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"Protocol": "ProtoBuf:1", "Plugins": []}).encode(),
        json.dumps({"Plugins": [{"Name": "x"}]}).encode(),
    ],
)
def test_a_dump_that_kong_could_not_read(output: bytes) -> None:
    with pytest.raises(DumpError, match="x: "):
        parse_dump(ServerInfo("x", Path("/nowhere.sock"), "ProtoBuf:1"), output)
