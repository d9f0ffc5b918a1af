"""ACL rules on a real Kong: its schema library refuses those that could never hold, and consumer
groups come through its Lua."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from kong_ai_proxy.lua.path import lua_package_path
from tests.decks import config, deck, route
from tests.gateways import GatewayFactory, Plan, Protocol, RunningGateway
from tests.integration.known_parts import assert_carried_by
from tests.recorder import Recorder

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
LUA = Path(__file__).parent / "lua"
TARGET = config("http://127.0.0.1:9/x")
ACCURACY = {"algorithm": "lowest-usage", "tokens_count_strategy": "llm-accuracy"}


def with_match(**match: Any) -> dict[str, Any]:
    return {"acls": {"deny": [{"match": [match]}]}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_match(type="header", values=["x"]), "must set 'key', the name of the header"),
        (with_match(type="consumer", key="name", values=["x"]), "expected id, username or none"),
        (with_match(type="consumer_group", key="x", values=["x"]), "expected id, name or none"),
        (with_match(type="ip", values=["10.0.0.1", "office"]), "expected an IP address"),
        (with_match(type="path", values=["chat"]), "expected a path that begins with /"),
        (with_match(type="provider", values=["OpenAI"]), "expected one of: anthropic"),
        ({"balancer": ACCURACY}, "llm-accuracy needs the Enterprise plugin"),
        (with_match(type="header", key="x", values=["y"]), None),
        (with_match(type="consumer", values=["x"]), None),
        (with_match(type="consumer", key=None, values=["x"]), None),
        (with_match(type="consumer_group", key="name", values=["x"]), None),
        (with_match(type="ip", values=["10.0.0.1", "10.0.0.0/8", "::ffff:10.0.0.1"]), None),
        (with_match(type="path", values=["/"]), None),
        (with_match(type="provider", values=["openai"]), None),
        ({"balancer": {**ACCURACY, "algorithm": "round-robin"}}, None),
        ({"balancer": None, "acls": None}, None),
    ],
)
async def test_the_admin_api_refuses_what_could_never_hold(
    kong: GatewayFactory, change: dict[str, Any], says: str | None
) -> None:
    running = await kong(deck())
    plugin = {"name": "ai-proxy-advanced", "config": {"targets": [TARGET], **change}}
    async with httpx.AsyncClient(timeout=30) as http:
        url = f"{running.admin_url}/schemas/plugins/validate"
        answer = await http.post(url, json=plugin)
    assert answer.status_code == (400 if says else 200), answer.text
    assert says is None or says in answer.text


GOLD = [{"match": [{"type": "consumer_group", "values": ["gold"]}]}]
CONSUMERS: list[dict[str, Any]] = [
    {"username": name, "keyauth_credentials": [{"key": f"{name}-key"}]}
    for name in ("alice", "bob", "eve")
]


def guarded(path: str, acls: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    groups = {"alice": "silver gold", "bob": "silver"}
    made = route(path, {"targets": [target], "acls": acls}, "ai-proxy-advanced")
    made["plugins"] += [
        {"name": "key-auth"},
        {"name": "testgroups", "config": {"groups": groups}},
    ]
    return made


@pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
async def test_the_shim_tells_consumer_groups(
    kong: GatewayFactory, provider: Recorder, protocol: Protocol
) -> None:
    """Open-source Kong has none: Lua of this test's own stands in for Enterprise."""
    if kong.kind != "installed":
        pytest.skip("the groups of this test come from a Lua file on this machine")
    path = f"{lua_package_path().removesuffix(';;')};{LUA}/?.lua;;"
    plugins = "bundled,ai-proxy,ai-proxy-advanced,testgroups"
    changes = {"plugins": plugins, "lua_package_path": path}
    running = await kong.kong(Plan(kong.kind, protocol, changes=changes))
    carried = config(provider.url("/x"))
    relayed = {**carried, "logging": {"log_statistics": True}}
    await running.reload(
        deck(
            guarded("/allow", {"allow": GOLD}, carried),
            guarded("/deny", {"deny": GOLD}, carried),
            guarded("/relay/allow", {"allow": GOLD}, relayed),
            guarded("/relay/deny", {"deny": GOLD}, relayed),
            consumers=CONSUMERS,
        )
    )
    assert await statuses(running, "/allow") == [200, 403, 403]
    assert await statuses(running, "/deny") == [403, 200, 200]
    assert "carrying " not in running.log()
    assert await statuses(running, "/relay/allow") == [200, 403, 403]
    assert await statuses(running, "/relay/deny") == [403, 200, 200]
    await assert_carried_by("relay", running)


async def statuses(running: RunningGateway, path: str) -> list[int]:
    """What each consumer gets, whatever groups it claims to be in."""
    found = []
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as http:
        for consumer in CONSUMERS:
            key = consumer["keyauth_credentials"][0]["key"]
            headers = {"apikey": key, "x-consumer-groups": "gold"}
            found.append((await http.post(path, json=CHAT, headers=headers)).status_code)
    return found
