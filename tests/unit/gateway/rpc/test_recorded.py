"""The stand-in says to a plugin server what a real Kong said, and does the same to the request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kong_ai_proxy.gateway.context import RequestContext
from kong_ai_proxy.gateway.pdk import Call, record
from tests.unit.gateway.rpc.replay import Player, entity, load

RECORDED = {protocol: load(protocol) for protocol in ("protobuf", "msgpack")}
SCENARIOS = [(protocol, name) for protocol in RECORDED for name in RECORDED[protocol]]


def upstream_request(ctx: RequestContext) -> dict[str, Any]:
    """What the upstream gets, as far as the plugin decides it."""
    upstream = ctx.upstream
    body = ctx.client.body.content if upstream.body is None else upstream.body
    return {
        "method": upstream.method,
        "path": f"{upstream.path}?{upstream.query}" if upstream.query else upstream.path,
        "host": upstream.host_header or f"{upstream.host}:{upstream.port}",
        "body": body.decode("utf-8", "surrogateescape"),
        "headers": sorted([name.lower(), value] for name, value in upstream.headers),
    }


def body_of(text: str) -> object:
    """JSON by meaning: Kong's order of keys is not fixed."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def answer(ctx: RequestContext) -> dict[str, Any]:
    assert ctx.exit is not None
    return {
        "status": ctx.exit.status,
        "body": body_of(ctx.exit.body.decode("utf-8", "surrogateescape")),
        "headers": sorted([name.lower(), value] for name, value in ctx.exit.headers),
    }


@pytest.mark.parametrize(("protocol", "name"), SCENARIOS)
async def test_recorded_kong_and_stand_in_say_the_same(
    protocol: str, name: str, tmp_path: Path
) -> None:
    scenario = RECORDED[protocol][name]
    player = Player(protocol, scenario, tmp_path / "s")
    await player.play()
    for number, request in enumerate(scenario["requests"], 1):
        ctx = player.contexts[number]
        if "exit" in request:
            wanted = request["exit"]
            assert answer(ctx) == wanted | {"body": body_of(wanted["body"])}
            continue
        assert ctx.exit is None, ctx.log
        found = upstream_request(ctx)
        assert found == request["upstream"] | (
            {} if request["upstream"]["body"] is not None else {"body": found["body"]}
        )
        headers = sorted([name, value] for name, value in ctx.response_headers)
        assert headers == request["response_headers"]


@pytest.mark.parametrize("protocol", list(RECORDED))
async def test_log_record_has_the_values_of_the_plugin(protocol: str, tmp_path: Path) -> None:
    scenario = RECORDED[protocol]["09-serialize-value"]
    player = Player(protocol, scenario, tmp_path / "s")
    await player.play()
    call = Call(player.contexts[1], entity(scenario["configs"][0]), "log", "node")
    assert record(call)["ai"] == scenario["file_log_ai"]
