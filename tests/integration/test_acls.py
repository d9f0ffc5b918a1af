"""Who may use which model, where Kong carries the request and where the relay does."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from tests.decks import config, deck, route
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration.known_parts import assert_carried_by
from tests.recorder import Recorder

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
FORGED = {
    "x-consumer-id": "alice",
    "x-consumer-username": "alice",
    "x-consumer-groups": "gold",
    "x-credential-identifier": "alice",
}
CONSUMERS = [
    {"username": name, "keyauth_credentials": [{"key": f"{name}-key"}]} for name in ("alice", "bob")
]
WAYS: dict[str, Any] = {"kong": {}, "relay": {"logging": {"log_statistics": True}}}
ways = pytest.mark.parametrize("way", WAYS)

Json = dict[str, Any]


def match(kind: str, *values: str, key: str | None = None) -> Json:
    return {"type": kind, "values": list(values), **({"key": key} if key else {})}


def rules(*matches: Json) -> list[Json]:
    return [{"match": list(matches)}]


def guarded(path: str, acls: Json, *targets: Json, key_auth: bool = False) -> Json:
    """A route whose targets are for those whom the rules let in."""
    made = route(path, {"targets": list(targets), "acls": acls}, "ai-proxy-advanced")
    made["plugins"] += [{"name": "key-auth"}] if key_auth else []
    return made


async def status(running: RunningGateway, path: str, **more: Any) -> int:
    """Of a chat request, whose refusal says nothing of the rules."""
    body = orjson.dumps({**CHAT, **more.pop("body", {})})
    headers = [("content-type", "application/json"), *dict(more.pop("headers", {})).items()]
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        answer = await client.post(path, content=body, headers=headers, **more)
    if answer.status_code == 403:
        said = {"message": "this consumer may not use the model"}
        assert answer.json() == {"error": said}
    return answer.status_code


@ways
async def test_a_consumer_is_whom_kong_has_authenticated(
    gateway: GatewayFactory, provider: Recorder, way: str
) -> None:
    target = config(provider.url("/x"), **WAYS[way])
    alice = rules(match("consumer", "alice"))
    running = await gateway(
        deck(
            guarded("/allow", {"allow": alice}, target, key_auth=True),
            guarded("/deny", {"deny": alice}, target, key_auth=True),
            guarded("/both", {"allow": alice, "deny": alice}, target, key_auth=True),
            guarded("/open", {"allow": alice}, target),
            consumers=CONSUMERS,
        )
    )
    alices, bobs = {"apikey": "alice-key"}, {"apikey": "bob-key"}
    expected = {"/allow": (200, 403), "/deny": (403, 200), "/both": (403, 403), "/open": (403, 403)}
    for path, both in expected.items():
        for key, wanted in zip((alices, bobs), both, strict=True):
            assert await status(running, path, headers=key) == wanted, (path, key)
    assert await status(running, "/allow", headers={**bobs, **FORGED}) == 403
    assert await status(running, "/open", headers=FORGED) == 403
    assert len(provider.received) == 2
    await assert_carried_by(way, running)


@ways
async def test_what_a_request_says_and_where_it_comes_from(
    gateway: GatewayFactory, provider: Recorder, way: str
) -> None:
    target = config(provider.url("/x"), **WAYS[way])
    running = await gateway(
        deck(
            guarded("/h", {"allow": rules(match("header", "blue", key="X-Team"))}, target),
            guarded("/ip", {"allow": rules(match("ip", "127.0.0.0/8"))}, target),
            guarded("/far", {"allow": rules(match("ip", "203.0.113.0/24"))}, target),
            guarded("/p", {"deny": rules(match("path", "/p/admin"))}, target),
            guarded(
                "/and",
                {"deny": rules(match("ip", "127.0.0.1"), match("header", "x", key="a"))},
                target,
            ),
        )
    )
    far = {"x-forwarded-for": "203.0.113.7", "x-real-ip": "203.0.113.7"}
    for wanted, path, headers in (
        (200, "/h", {"x-team": "blue"}),
        (403, "/h", {"x-team": "red"}),
        (403, "/h", {}),
        (200, "/ip", far),
        (403, "/far", far),
        (200, "/p", {}),
        (200, "/p/administration", {}),
        (403, "/p/admin", {}),
        (403, "/p/%61dmin/x", {}),
        (403, "/p//admin", {}),
        (403, "/p/x%2f..%2fadmin", {}),
        (403, "/and", {"a": "x"}),
        (200, "/and", {"a": "y"}),
    ):
        assert await status(running, path, headers=headers) == wanted, (path, headers)
    await assert_carried_by(way, running)


@ways
async def test_a_target_that_is_not_permitted_is_none(
    gateway: GatewayFactory, provider: Recorder, way: str
) -> None:
    base = config(provider.url("/x"), name=None, **WAYS[way])
    named = [
        {**base, "model": {**base["model"], "name": name, "model_alias": alias}}
        for name, alias in (("gpt-4o", "good"), ("gpt-4o-mini", "cheap"))
    ]
    no_good = rules(match("header", "blue", key="x-team"), match("model", "good"))
    running = await gateway(
        deck(
            guarded("/alias", {"deny": no_good}, *named),
            guarded("/named", {"allow": rules(match("model", "gpt-4o", "gpt-4.1"))}, base),
            guarded("/provider", {"deny": rules(match("provider", "openai"))}, base),
        )
    )
    blue = {"x-team": "blue"}
    for wanted, path, name, headers in (
        (403, "/alias", "good", blue),
        (200, "/alias", "good", {}),
        (200, "/alias", "cheap", blue),
        (200, "/named", "gpt-4.1", {}),
        (403, "/named", "gpt-4o-mini", {}),
        (403, "/provider", "gpt-4o", {}),
    ):
        answered = await status(running, path, body={"model": name}, headers=headers)
        assert answered == wanted, (path, name)
    sent = [orjson.loads(received.body)["model"] for received in provider.received]
    assert sent == ["gpt-4o", "gpt-4o-mini", "gpt-4.1"]
    await assert_carried_by(way, running)


GROUPS: Json = {
    "consumer_groups": [{"name": "gold"}, {"name": "silver"}],
    "consumers": [
        {**CONSUMERS[0], "groups": [{"name": "gold"}, {"name": "silver"}]},
        {**CONSUMERS[1], "groups": [{"name": "silver"}]},
    ],
}


@ways
async def test_a_consumer_group_is_one_of_the_consumers(
    gateway: GatewayFactory, provider: Recorder, way: str
) -> None:
    if gateway.kind != "standin":
        pytest.skip("open-source Kong has no consumer groups")
    target = config(provider.url("/x"), **WAYS[way])
    gold = rules(match("consumer_group", "gold", key="name"))
    running = await gateway(
        deck(
            guarded("/allow", {"allow": gold}, target, key_auth=True),
            guarded("/deny", {"deny": gold}, target, key_auth=True),
            guarded("/open", {"allow": gold}, target),
            **GROUPS,
        )
    )
    alices, bobs = {"apikey": "alice-key"}, {"apikey": "bob-key"}
    assert await status(running, "/allow", headers=alices) == 200
    assert await status(running, "/allow", headers={**bobs, **FORGED}) == 403
    assert await status(running, "/deny", headers=alices) == 403
    assert await status(running, "/deny", headers=bobs) == 200
    assert await status(running, "/open", headers=FORGED) == 403
    await assert_carried_by(way, running)


@ways
@pytest.mark.parametrize("kind", ["allow", "deny"])
async def test_where_groups_cannot_be_known_nobody_is_let_in(
    kong: GatewayFactory, provider: Recorder, way: str, kind: str
) -> None:
    target = config(provider.url("/x"), **WAYS[way])
    acls = {kind: rules(match("consumer_group", "gold"))}
    running = await kong(deck(guarded("/chat", acls, target)))
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        answer = await client.post("/chat", json=CHAT)
    assert answer.status_code == 500
    assert "Kong does not say here which groups" in answer.json()["error"]["message"]
    assert provider.received == []
