"""What the provider gets from a request that Kong carries, and what it does not."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from tests.decks import AUTH, KEY, config, deck, route
from tests.gateways import GatewayFactory, RunningGateway
from tests.recorder import Recorder

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


async def post(running: RunningGateway, path: str, body: Any = CHAT, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        return await client.post(path, json=body, **more)


async def test_path_host_and_key_are_the_providers(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    url = provider.url("/openai/chat?beta=1")
    running = await gateway(deck(route("/chat", config(url))))
    answer = await post(running, "/chat?trace=%20x")
    assert answer.status_code == 200
    assert answer.headers["x-kong-llm-model"] == "openai/gpt-4o"
    assert provider.last.method == "POST"
    assert provider.last.target == "/openai/chat?beta=1&trace=%20x"
    assert provider.last.header("host") == f"127.0.0.1:{provider.port}"
    assert provider.last.header("authorization") == f"Bearer {KEY}"
    assert orjson.loads(provider.last.body) == CHAT


@pytest.mark.parametrize("size", [100, 20_000, 700_000])
async def test_bodies_of_every_size_arrive_with_their_changes(
    gateway: GatewayFactory, provider: Recorder, size: int
) -> None:
    configuration = config(provider.url("/v1/chat/completions"))
    configuration["model"]["options"]["max_tokens"] = 64
    running = await gateway(deck(route("/chat", configuration)))
    body = {**CHAT, "user": "x" * size}
    assert (await post(running, "/chat", body)).status_code == 200
    assert orjson.loads(provider.last.body) == {**body, "max_tokens": 64}


async def test_a_body_that_need_not_change_arrives_byte_for_byte(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    running = await gateway(deck(route("/chat", config(provider.url("/x")))))
    content = (
        b'{ "model":"gpt-4o",\n"messages" : [ {"role":"user","content":"\\u00e9"} ] , "n":1.0}'
    )
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{running.url}/chat", content=content)
    assert answer.status_code == 200
    assert provider.last.body == content


async def test_the_clients_credentials_and_kongs_headers_stay_behind(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    running = await gateway(deck(route("/chat", config(provider.url("/x")))))
    sent = {
        "authorization": "Bearer client-secret",
        "x-api-key": "client-secret",
        "apikey": "client-secret",
        "cookie": "session=client-secret",
        "x-consumer-username": "mallory",
        "x-credential-identifier": "mallory",
        "openai-organization": "org-1",
    }
    assert (await post(running, "/chat?apikey=client-secret", headers=sent)).status_code == 200
    seen = provider.last
    assert not seen.names & (sent.keys() - {"authorization", "openai-organization"})
    assert seen.header("openai-organization") == "org-1"
    assert "client-secret" not in repr(seen)


async def test_a_consumers_key_and_name_stay_behind(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    ai_route = route("/chat", config(provider.url("/x")))
    ai_route["plugins"].append({"name": "key-auth"})
    consumers = [{"username": "alice", "keyauth_credentials": [{"key": "alice-key"}]}]
    running = await gateway(deck(ai_route, consumers=consumers))
    assert (await post(running, "/chat")).status_code == 401
    assert (await post(running, "/chat", headers={"apikey": "alice-key"})).status_code == 200
    assert "alice" not in repr(provider.last)


async def test_templates_take_named_captures_headers_and_query(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    configuration = config(
        provider.url("/$(uri_captures.deployment)/chat"),
        name="$(headers.x-family)-$(query_params.size)",
    )
    running = await gateway(deck(route("~/d/(?<deployment>[^/]+)/chat$", configuration)))
    body = {"messages": CHAT["messages"]}
    answer = await post(running, "/d/eu-1/chat?size=mini", body, headers={"x-family": "gpt"})
    assert answer.status_code == 200
    assert provider.last.target == "/eu-1/chat?size=mini"
    assert orjson.loads(provider.last.body)["model"] == "gpt-mini"


async def test_an_alias_chooses_among_targets(gateway: GatewayFactory, provider: Recorder) -> None:
    targets = []
    for alias, name in (("big", "gpt-4o"), ("small", "gpt-4o-mini")):
        target = config(provider.url(f"/{alias}"), name=name)
        target["model"]["model_alias"] = alias
        targets.append(target)
    running = await gateway(deck(route("/chat", {"targets": targets}, "ai-proxy-advanced")))
    answer = await post(running, "/chat", {**CHAT, "model": "small"})
    assert answer.headers["x-kong-llm-model"] == "openai/gpt-4o-mini"
    assert provider.last.target == "/small"
    assert orjson.loads(provider.last.body)["model"] == "gpt-4o-mini"
    refused = await post(running, "/chat", {**CHAT, "model": "huge"})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": {"message": "model not configured"}},
    )


async def test_preserve_carries_anything(gateway: GatewayFactory, provider: Recorder) -> None:
    configuration = config(provider.url(), "preserve", None)
    running = await gateway(deck(route("/files", configuration)))
    content = bytes(range(256)) * 100
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.put(f"{running.url}/files/a%2Fb?x=1", content=content)
    assert answer.status_code == 200
    assert (provider.last.method, provider.last.target) == ("PUT", "/files/a%2Fb?x=1")
    assert provider.last.body == content
    assert provider.last.header("authorization") == AUTH["header_value"]


async def test_a_reload_changes_the_next_request(
    gateway: GatewayFactory, provider: Recorder
) -> None:
    running = await gateway(deck(route("/chat", config(provider.url("/one")))))
    await post(running, "/chat")
    await running.reload(deck(route("/chat", config(provider.url("/two")))))
    await post(running, "/chat")
    assert [request.target for request in provider.received] == ["/one", "/two"]


async def test_the_same_over_msgpack(gateway: GatewayFactory, provider: Recorder) -> None:
    configuration = config(provider.url("/v1/chat/completions"))
    configuration["model"]["options"]["max_tokens"] = 64
    running = await gateway(deck(route("/chat", configuration)), protocol="msgpack")
    body = {**CHAT, "user": "x" * 20_000}
    assert (await post(running, "/chat", body)).status_code == 200
    assert orjson.loads(provider.last.body) == {**body, "max_tokens": 64}
    assert (await post(running, "/chat", {**CHAT, "model": "other"})).status_code == 400
