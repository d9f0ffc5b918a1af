"""The examples of balancing, each doing what its comments say."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
import yaml

from kong_ai_proxy.gateway.dev_deck import dumped
from tests.faults import ErrorEvent, Good, Hang, Refuse, Status
from tests.gateways import GatewayFactory
from tests.integration import balanced, examples
from tests.integration.balanced import Place, Says, said, world
from tests.integration.examples import ENV, Json

# ---- balancing.yaml


async def test_round_robin_gives_each_its_weight(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-round-robin") as found:
        shares = await found["balancing-round-robin"].shares(200)
        assert shares["0"] == pytest.approx(140, abs=12)
        assert shares["1"] == pytest.approx(50, abs=12)
        assert 2 <= shares["2"] <= 22


async def test_the_same_header_leads_to_the_same_target(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-consistent-hashing") as found:
        place = found["balancing-consistent-hashing"]
        sessions = [{"X-Session-Id": f"session-{number}"} for number in range(24)]
        first = [said(await place.ask(session)) for session in sessions]
        assert [said(await place.ask(session)) for session in sessions] == first
        assert set(first) == {"0", "1", "2"}
        assert set(await place.shares(12)) == {"0", "1", "2"}  # without one: in turn


async def test_who_has_least_to_do_is_asked(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-least-connections") as found:
        place = found["balancing-least-connections"]
        gate = asyncio.Event()
        for index, target in enumerate(place.targets):
            await target.become(Says(str(index), gate=gate))
        asking = []
        for number in range(1, 13):
            asking.append(asyncio.create_task(place.ask()))
            await _until(lambda number=number: sum(place.asked) == number)
        counts = place.asked
        gate.set()
        await asyncio.gather(*asking)
        # Weights 2 and 1. Another worker's requests are seen after 10 ms.
        assert counts[0] == pytest.approx(8, abs=2)
        await place.targets[0].become(Status(429))
        assert await place.shares(4) == {"1": 4}


async def test_who_was_given_fewest_tokens_is_asked(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-lowest-usage") as found:
        place = found["balancing-lowest-usage"]
        for index, tokens in enumerate((300, 100)):
            await place.targets[index].become(Says(str(index), tokens))
        assert (await place.shares(60))["0"] == pytest.approx(15, abs=7)


async def test_who_has_cost_least_is_asked(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-lowest-cost") as found:
        shares = await found["balancing-lowest-cost"].shares(60)
        assert 1 <= shares["0"] <= 12  # at seventeen times the price


async def test_the_quickest_gets_nearly_all(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-lowest-latency") as found:
        place = found["balancing-lowest-latency"]
        await place.targets[0].become(Says("0", delay=1.5))
        shares = await place.shares(60)
        assert shares["1"] > 40
        assert shares["0"] >= 1  # somebody has to find out


async def test_lower_weights_wait_until_the_higher_ones_fail(gateway: GatewayFactory) -> None:
    async with world(gateway, "balancing.yaml", "balancing-priority") as found:
        place = found["balancing-priority"]
        shares = await place.shares(20)
        assert set(shares) == {"0", "1"}
        assert shares["0"] == pytest.approx(10, abs=2)
        await place.targets[0].become(Status(503))
        assert await place.shares(6) == {"1": 6}
        await place.targets[1].become(Refuse())
        assert await place.shares(6) == {"2": 6}


# ---- circuit-breaker.yaml

_OUT = 1.0  # fail_timeout, in seconds


def _quicker(config: Json) -> None:
    assert config["balancer"]["fail_timeout"] == 10_000
    config["balancer"]["fail_timeout"] = round(_OUT * 1000)


async def test_the_breaker_opens_and_closes_again(gateway: GatewayFactory) -> None:
    async with world(gateway, "circuit-breaker.yaml", change=_quicker) as found:
        place = found["circuit-breaker"]
        bad = place.targets[0]
        await bad.become(Status(503))
        opened = await _open(place)
        while len(bad.received) == 3:  # skipped, and nobody notices
            assert said(await place.ask()) == "1"
        assert time.monotonic() - opened >= _OUT
        await bad.become(Good("0", keeps=True))
        while said(await place.ask()) != "0":  # until it is probed
            pass
        assert set(await place.shares(8)) == {"0", "1"}


async def _open(place: Place) -> float:
    """Ask until the first target has failed three times; no later than when the third one was."""
    while True:
        before = time.monotonic()
        assert said(await place.ask()) == "1"
        if len(place.targets[0].received) == 3:
            return before


async def test_a_reload_keeps_the_breaker_open(gateway: GatewayFactory) -> None:
    async with world(gateway, "circuit-breaker.yaml") as found:
        place = found["circuit-breaker"]
        await place.targets[0].become(Status(503))
        before = await _open(place)
        for weight in (100, 50):  # the same file, and one with another weight
            deck: Json = yaml.safe_load(found.deck)
            for route in examples.routes(deck):
                balanced.plugin(route)["config"]["targets"][0]["weight"] = weight
            await found.running.reload(dumped(deck))
            assert await place.shares(8) == {"1": 8}
        assert place.asked[0] == 3 or time.monotonic() - before > 10  # fail_timeout


async def test_the_breaker_does_not_count_403(gateway: GatewayFactory) -> None:
    async with world(gateway, "circuit-breaker.yaml") as found:
        place = found["circuit-breaker"]
        await place.targets[0].become(Status(403))
        assert await place.shares(12) == {"1": 12}
        assert place.asked[0] > 3


async def test_when_all_are_out_there_is_no_target(gateway: GatewayFactory) -> None:
    async with world(gateway, "circuit-breaker.yaml") as found:
        place = found["circuit-breaker"]
        for target in place.targets:
            await target.become(Status(500))
        answers = [await place.ask() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [500] * 4
        assert place.asked == [3, 3]
        assert answers[-1].json() == {"error": {"message": "no available targets"}}


# ---- failover.yaml

_CHAT: Json = {"model": "chat"}


def _impatient(config: Json) -> None:
    config["balancer"]["read_timeout"] = 500


async def test_the_next_provider_gets_the_request_in_its_own_format(
    gateway: GatewayFactory,
) -> None:
    async with world(gateway, "failover.yaml", change=_impatient) as found:
        place = found["failover-chat"]
        openai, anthropic, gemini = place.targets
        assert said(await place.ask(**_CHAT)) == "0"
        await openai.become(Status(503))
        answer = await place.ask(**_CHAT)
        assert said(answer) == "1"
        assert answer.headers["x-kong-llm-model"] == "anthropic/claude-sonnet-4-6"
        asked = anthropic.received[-1]
        assert asked.target == "/v1/messages"
        assert asked.header("x-api-key") == ENV["DECK_ANTHROPIC_API_KEY"]
        assert orjson.loads(asked.body) == {
            "model": "claude-sonnet-4-6",
            "max_tokens": 4096,
            "messages": balanced.MESSAGES,
        }
        await anthropic.become(Hang())
        assert said(await place.ask(**_CHAT)) == "2"
        assert ":generateContent" in gemini.received[-1].target
        assert gemini.received[-1].header("x-api-key") is None
        if found.running.kind == "standin":  # which has no shim, so the lines are in the log
            await _until(lambda: len(_lines(found.running.log())) == 3)
            line = _lines(found.running.log())[-1]["proxy"]
            tried = [each["provider"] for each in line["tried_targets"]]
            assert tried == ["openai", "anthropic", "gemini"]


def _lines(log: str) -> list[Json]:
    """The statistics in a plugin server's output."""
    lines = [line for line in log.splitlines() if '"tried_targets"' in line]
    return [_found(orjson.loads(line[line.index("{") :])) for line in lines]


def _found(line: Json) -> Json:
    found: Json = line.get("ai", line)
    return found


async def test_an_error_inside_a_stream_is_followed_by_another_stream(
    gateway: GatewayFactory,
) -> None:
    async with world(gateway, "failover.yaml") as found:
        place = found["failover-chat"]
        await place.targets[0].become(ErrorEvent(529))
        await place.targets[1].become(Good("one two"))
        answer = await place.ask(stream=True, **_CHAT)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        *events, last = [e for e in answer.text.split("\n\n") if e]
        assert last == "data: [DONE]"
        chunks = [orjson.loads(event.removeprefix("data: ")) for event in events]
        texts = [c["delta"].get("content") or "" for e in chunks for c in e["choices"]]
        assert "".join(texts) == "one two"
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_a_clients_mistake_goes_to_nobody_else(gateway: GatewayFactory) -> None:
    async with world(gateway, "failover.yaml") as found:
        place = found["failover-chat"]
        await place.targets[0].become(Status(400))
        assert (await place.ask(**_CHAT)).status_code == 400
        assert place.asked == [1, 0, 0]


async def test_when_all_fail_the_last_answer_is_told(gateway: GatewayFactory) -> None:
    async with world(gateway, "failover.yaml") as found:
        place = found["failover-chat"]
        for target, step in zip(place.targets, (Refuse(), Status(503), Status(429)), strict=True):
            await target.become(step)
        answer = await place.ask(**_CHAT)
        assert answer.status_code == 429
        assert answer.json()["error"]["message"] == "told to fail"
        assert place.asked == [0, 1, 1]


# ---- alias-routing.yaml


async def test_aliases_lead_to_their_targets(gateway: GatewayFactory) -> None:
    async with world(gateway, "alias-routing.yaml") as found:
        place = found["alias-chat"]
        shares = await place.shares(20, model="powerful")
        assert shares["0"] == pytest.approx(12, abs=3)
        assert set(shares) == {"0", "1"}
        assert await place.shares(3, model="fast") == {"2": 3}
        fast: Any = orjson.loads(place.targets[2].received[-1].body)
        assert (fast["model"], fast["max_tokens"]) == ("gpt-4o-mini", 512)
        assert "cost_center" not in fast
        assert said(await place.ask(model="private")) == "3"
        assert place.targets[3].received[-1].header("authorization") is None
        refused = await place.ask(model="o3")
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "model not configured"


async def test_an_alias_of_two_providers_survives_one_of_them(gateway: GatewayFactory) -> None:
    async with world(gateway, "alias-routing.yaml") as found:
        place = found["alias-chat"]
        await place.targets[0].become(Status(429))
        assert await place.shares(6, model="powerful") == {"1": 6}
        await place.targets[2].become(Status(429))  # the only "fast" one
        assert (await place.ask(model="fast")).status_code == 429
        assert place.asked[3] == 0


# ---- dynamic-models.yaml


async def test_the_path_names_the_model(gateway: GatewayFactory) -> None:
    async with world(gateway, "dynamic-models.yaml") as found:
        for name, model in [("openai", "gpt-4.1"), ("mistral", "mistral-small-2506")]:
            place = found[f"dynamic-{name}"]
            place.path = f"/dynamic/{name}/{model}/v1/chat/completions"
            assert said(await place.ask()) == "0"
            sent: Any = orjson.loads(place.targets[0].received[-1].body)
            assert sent["model"] == model
            assert (await place.ask(model="another")).status_code == 400
        place = found["dynamic-azure"]
        place.path = "/dynamic/azure/team-gpt/v1/chat/completions"
        assert said(await place.ask()) == "0"
        asked = place.targets[0].received[-1]
        assert asked.target.startswith("/openai/deployments/team-gpt/chat/completions?")
        assert asked.header("api-key") == ENV["DECK_AZURE_API_KEY"]


# ---- acls.yaml, acls-groups.yaml

_ALICE = {"apikey": ENV["DECK_ALICE_KEY"]}
_BOB = {"apikey": ENV["DECK_BOB_KEY"]}


async def test_consumers_may_use_their_models_only(gateway: GatewayFactory) -> None:
    async with world(gateway, "acls.yaml", "acl-consumer") as found:
        place = found["acl-consumer"]
        assert (await place.ask()).status_code == 401
        assert said(await place.ask(_ALICE, model="gpt-4o")) == "0"
        assert (await place.ask(_BOB, model="gpt-4o")).status_code == 403
        forged = {**_BOB, "X-Consumer-Username": "alice"}
        assert (await place.ask(forged, model="gpt-4o")).status_code == 403
        assert await place.shares(4, headers=_BOB) == {"1": 4}
        assert set(await place.shares(8, headers=_ALICE)) == {"0", "1"}


async def test_a_header_lets_in(gateway: GatewayFactory) -> None:
    async with world(gateway, "acls.yaml", "acl-header") as found:
        place = found["acl-header"]
        assert said(await place.ask({"X-Team": "search"})) == "0"
        assert (await place.ask({"X-Team": "sales"})).status_code == 403
        refused = await place.ask()
        assert refused.status_code == 403
        assert refused.json()["error"]["message"] == "this consumer may not use the model"
        assert place.asked == [1]


@pytest.mark.parametrize("denied", [False, True])
async def test_an_address_lets_in_and_a_denial_wins(gateway: GatewayFactory, denied: bool) -> None:
    def deny(config: Json) -> None:
        if denied:
            config["acls"]["deny"][0]["match"][0]["values"] = ["127.0.0.0/8"]

    async with world(gateway, "acls.yaml", "acl-ip", change=deny) as found:
        answer = await found["acl-ip"].ask()
        assert answer.status_code == (403 if denied else 200)


async def test_some_are_denied_some_models(gateway: GatewayFactory) -> None:
    async with world(gateway, "acls.yaml", "acl-model") as found:
        place, trial = found["acl-model"], {"X-Plan": "trial"}
        assert await place.shares(6, headers=trial) == {"2": 6}
        for model in ("gpt-4o", "claude-sonnet-4-6"):
            assert (await place.ask(trial, model=model)).status_code == 403
        assert set(await place.shares(12)) == {"0", "1", "2"}


async def test_groups_may_use_their_models_only(gateway: GatewayFactory) -> None:
    if gateway.kind != "standin":
        pytest.skip("open-source Kong has no consumer groups")
    async with world(gateway, "acls-groups.yaml") as found:
        place = found["acl-groups"]
        assert said(await place.ask(_ALICE, model="gpt-4o")) == "0"
        assert (await place.ask(_BOB, model="gpt-4o")).status_code == 403
        assert await place.shares(4, headers=_BOB) == {"1": 4}


async def _until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
