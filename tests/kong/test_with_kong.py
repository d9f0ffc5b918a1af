"""What only a real Kong can show: that it loads both plugins through the shim, and what the shim
does to its requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kong_ai_proxy import __version__, resources
from tests.decks import KEY, config, deck, route
from tests.gateways import GatewayError, GatewayFactory, InstalledKong, Plan, wait_until
from tests.recorder import Recorder

PLUGINS = ("ai-proxy", "ai-proxy-advanced")
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


def field_names(fields: list[dict[str, Any]]) -> set[str]:
    return {name for field in fields for name in field}


def config_fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = next(field["config"] for field in schema["fields"] if "config" in field)
    return list(found["fields"])


@pytest.mark.parametrize("plugin", PLUGINS)
async def test_both_names_are_this_projects_plugins(
    kong: GatewayFactory, http: httpx.AsyncClient, plugin: str
) -> None:
    running = await kong(deck())
    available = (await http.get(f"{running.admin_url}/")).json()["plugins"]["available_on_server"]
    assert available[plugin]["version"] == __version__
    loaded = (await http.get(f"{running.admin_url}/schemas/plugins/{plugin}")).json()
    ours = json.loads(resources.path("schemas", f"{plugin}.kong.json").read_text())
    assert field_names(config_fields(loaded)) == field_names(config_fields(ours))


async def test_a_valid_configuration_passes_the_admin_api(
    kong: GatewayFactory, http: httpx.AsyncClient
) -> None:
    running = await kong(deck())
    plugin = {"name": "ai-proxy", "config": config("http://127.0.0.1:9/x")}
    answer = await http.post(f"{running.admin_url}/schemas/plugins/validate", json=plugin)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"route_type": "llm/v2/chat"}, ["route_type"]),
        ({"no_such_field": 1}, ["no_such_field"]),
        ({"model": {"provider": "nobody"}}, ["model", "provider"]),
        ({"model": {"provider": "openai", "options": {"temperature": 99}}}, ["model", "options"]),
        ({"max_request_body_size": -1}, ["max_request_body_size"]),
    ],
)
async def test_the_admin_api_names_the_wrong_field(
    kong: GatewayFactory, http: httpx.AsyncClient, change: dict[str, Any], path: list[str]
) -> None:
    running = await kong(deck())
    plugin = {"name": "ai-proxy", "config": {**config("http://127.0.0.1:9/x"), **change}}
    answer = await http.post(f"{running.admin_url}/schemas/plugins/validate", json=plugin)
    assert answer.status_code == 400
    found = answer.json()["fields"]["config"]
    for name in path:
        assert name in found
        found = found[name]


async def test_a_declarative_file_with_a_wrong_field_is_refused(kong: GatewayFactory) -> None:
    wrong = {**config("http://127.0.0.1:9/x"), "route_type": "llm/v2/chat"}
    with pytest.raises(GatewayError, match="route_type"):
        await kong(deck(route("/chat", wrong)))


async def test_a_service_with_an_ip_address_may_have_a_provider_with_a_name(
    kong: GatewayFactory, http: httpx.AsyncClient, provider: Recorder
) -> None:
    url = f"http://localhost:{provider.port}/v1/chat/completions"
    ip = {"url": "http://127.0.0.1:9"}
    running = await kong(deck(route("/chat", config(url)), service=ip))
    answer = await http.post(f"{running.url}/chat", json=CHAT)
    assert answer.status_code == 200
    assert provider.last.header("host") == f"localhost:{provider.port}"


async def test_the_provider_sees_nothing_of_x_forwarded(
    kong: GatewayFactory, http: httpx.AsyncClient, provider: Recorder
) -> None:
    running = await kong(deck(route("/chat", config(provider.url("/x")))))
    parts = ("for", "proto", "host", "port", "path", "prefix")
    sent = {f"x-forwarded-{part}": "192.0.2.7" for part in parts}
    assert (await http.post(f"{running.url}/chat", json=CHAT, headers=sent)).status_code == 200
    assert not [name for name in provider.last.names if name.startswith("x-forwarded")]


@pytest.mark.parametrize(("status", "names"), [(200, True), (201, False), (429, False)])
async def test_the_model_header_comes_with_200_only(
    kong: GatewayFactory, http: httpx.AsyncClient, provider: Recorder, status: int, names: bool
) -> None:
    provider.answer = provider.answer.replace(b"200 OK", b"%d Status" % status)
    running = await kong(deck(route("/chat", config(provider.url("/x")))))
    answer = await http.post(f"{running.url}/chat", json=CHAT)
    assert answer.status_code == status
    assert ("x-kong-llm-model" in answer.headers) is names


@pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
async def test_both_plugins_on_one_request_are_refused_before_any_provider(
    kong: GatewayFactory, http: httpx.AsyncClient, provider: Recorder, protocol: Any
) -> None:
    one = config(provider.url("/one"))
    other = {"targets": [config(provider.url("/other"))]}
    both = [{"name": "ai-proxy", "config": one}, {"name": "ai-proxy-advanced", "config": other}]
    routes = [route("/both", {}, plugins=both), route("/one", one)]
    running = await kong(deck(*routes), protocol=protocol)
    answer = await http.post(f"{running.url}/both", json=CHAT)
    message = "ai-proxy and ai-proxy-advanced both apply to this request: remove one"
    assert (answer.status_code, answer.json()) == (500, {"error": {"message": message}})
    assert provider.received == []
    for _ in range(2):  # the second on the same connection
        assert (await http.post(f"{running.url}/one", json=CHAT)).status_code == 200


async def silent_server() -> tuple[asyncio.Server, list[None]]:
    """An upstream that takes requests and never answers; the list has an entry for each."""
    seen: list[None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            seen.append(None)
            await reader.read()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0), seen


async def test_the_balancers_read_timeout_holds_and_nothing_is_retried(
    kong: GatewayFactory, http: httpx.AsyncClient
) -> None:
    """Against a Service that would wait long and retry five times."""
    server, seen = await silent_server()
    async with server:
        port = server.sockets[0].getsockname()[1]
        target = config(f"http://127.0.0.1:{port}/x", "preserve", None)
        advanced = {"targets": [target], "balancer": {"read_timeout": 300}}
        service = {"retries": 5, "read_timeout": 60000}
        running = await kong(deck(route("/any", advanced, "ai-proxy-advanced"), service=service))
        assert (await http.get(f"{running.url}/any")).status_code == 504
        assert len(seen) == 1


async def test_a_reload_of_kong_loses_no_request(
    kong: GatewayFactory, http: httpx.AsyncClient, provider: Recorder
) -> None:
    running = await kong.kong(Plan(kong.kind))
    await running.reload(deck(route("/chat", config(provider.url("/x")))))
    old = set(running.plugin_server_pids())
    await asyncio.to_thread(running.command, "reload")
    statuses = []
    until = asyncio.get_running_loop().time() + 20  # Kong ends the old server some 8 s later
    while old & set(running.plugin_server_pids()):
        statuses.append((await http.post(f"{running.url}/chat", json=CHAT)).status_code)
        assert asyncio.get_running_loop().time() < until
    assert set(statuses) == {200}
    assert {received.header("authorization") for received in provider.received} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
async def test_without_a_plugin_server_nothing_passes_even_to_a_service_that_would_answer(
    kong: GatewayFactory, http: httpx.AsyncClient, provider: Recorder, protocol: Any
) -> None:
    """The Service fails open here, and Kong has an instance: over MsgPack, and before Kong 3.8 over
    ProtoBuf too, Kong itself would only log the failure and send the request on as it came."""
    ai_route = route("/chat", config(provider.url("/ai")))
    open_service = {"url": provider.url("/unmodified")}
    running = await kong(deck(ai_route, service=open_service), protocol=protocol)
    assert (await http.post(f"{running.url}/chat", json=CHAT)).status_code == 200
    running.kill_plugin_server()
    statuses = [(await http.post(f"{running.url}/chat", json=CHAT)).status_code for _ in range(20)]
    assert set(statuses) <= {200, 500, 503}
    assert 500 in statuses
    assert {received.target for received in provider.received} == {"/ai"}


async def test_a_control_planes_lines_load_the_schemas_and_start_no_server(
    kong: GatewayFactory, http: httpx.AsyncClient
) -> None:
    """Without a database Kong cannot be a control plane, but these lines are all it would have."""
    if kong.kind != "installed":
        pytest.skip("the image has start_cmd in its kong.conf")
    running = await kong.kong(Plan(kong.kind, lines_for="control_plane"))
    assert isinstance(running, InstalledKong)
    for plugin in PLUGINS:
        answer = await http.get(f"{running.admin_url}/schemas/plugins/{plugin}")
        assert answer.status_code == 200
    assert running.plugin_server_pids() == []
    assert not (await asyncio.to_thread(wait_until, running.all_logs, "the log")).count("[error]")
