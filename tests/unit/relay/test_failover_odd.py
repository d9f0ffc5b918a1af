"""Answers of status 200 that are none, and what is left when all is over."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from kong_ai_proxy.balancer.states import Table
from tests.faults import Close, ErrorEvent, Faulty, Good, Hang, Raw, Refuse, Reset, Status, Step
from tests.relays import running
from tests.unit.relay.clients import client
from tests.unit.relay.failover import (
    ALL,
    NAME,
    SHORT_MS,
    answered,
    providers,
    question,
    said,
    target,
    targets,
)
from tests.unit.relay.upstreams import LAST_CHUNK, SSE, answer, chunk
from tests.vendors import OpenAI

GZIP = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
EMPTY = Raw(SSE + LAST_CHUNK)
OPENED = Raw(SSE + b"".join(map(chunk, OpenAI().opening())) + LAST_CHUNK)


@pytest.mark.parametrize(
    "first",
    [
        Raw(answer(b"<html>maintenance</html>", headers="Content-Type: text/html\r\n")),
        Raw(answer(b'{"id":')),
        Raw(answer(b"")),
        Raw(answer(b"no gzip", headers=GZIP)),
        Raw(answer(b"{}", headers="Content-Type: application/json\r\nContent-Encoding: odd\r\n")),
        ErrorEvent(529),
    ],
    ids=["html", "half", "empty", "no gzip", "unknown coding", "an error"],
)
async def test_an_answer_that_cannot_be_converted_is_a_failure(first: Step) -> None:
    async with (
        providers(first, Good()) as places,
        targets(*places, providers=["anthropic", "openai"]) as relay,
    ):
        found = await answered(relay)
        assert (found.status, said(found, "one-shot")) == (200, "hello")


@pytest.mark.parametrize("first", [EMPTY, OPENED], ids=["nothing", "only an opening"])
@pytest.mark.parametrize("order", [["openai", "openai"], ["anthropic", "openai"]])
async def test_a_stream_that_ends_without_having_said_anything_is_a_failure(
    first: Step, order: list[str]
) -> None:
    async with providers(first, Good()) as places, targets(*places, providers=order) as relay:
        assert said(await answered(relay, stream=True), "stream") == "hello"


async def test_an_error_in_place_of_an_answer_is_a_failure() -> None:
    """Also in the client's own format, of status 200."""
    async with providers(ErrorEvent(503), Good()) as places, targets(*places) as relay:
        assert said(await answered(relay), "one-shot") == "hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_broken_compression_in_the_clients_own_format(stream: bool) -> None:
    kind = "text/event-stream" if stream else "application/json"
    head = f"Content-Type: {kind}\r\nContent-Encoding: gzip\r\n"
    first = Raw(answer(b"no gzip at all", headers=head))
    async with providers(first, Good()) as places, targets(*places) as relay:
        found = await answered(relay, stream=stream)
        assert (found.status, said(found, "stream" if stream else "one-shot")) == (200, "hello")


async def test_nothing_is_under_way_when_all_is_over() -> None:
    """Whatever became of each request, also of one whose client has left."""
    table = Table.private()
    steps: list[Step] = [Refuse(), Reset(), Status(503), Close(body=9), ErrorEvent(500), Hang()]
    async with providers(*steps, Good()) as places:
        own = [
            target("openai", place, NAME, "key", weight=1000 - at)
            for at, place in enumerate(places)
        ]
        balancer: dict[str, Any] = {"algorithm": "priority", "failover_criteria": ALL}
        balancer |= {"retries": 20, "read_timeout": SHORT_MS, "max_fails": 3}
        found = {"targets": own, "balancer": balancer}
        async with running(found, "ai-proxy-advanced", table=table) as relay:
            for stream in (True, False):
                assert (await answered(relay, stream=stream)).status == 200
            async with client(relay) as one:
                await one.ask(body=question(NAME, stream=True))
                async with asyncio.timeout(5):
                    while len(places[-2].received) < 2:
                        await asyncio.sleep(0.001)
            await relay.settled()
            (balancing,) = relay.relay._balancings.values()
            assert list(balancing.states.in_flight(balancing.now())) == [0.0] * len(places)


async def test_a_target_whose_credentials_cannot_be_had_is_passed_by() -> None:
    """Nothing was sent: no leave is needed."""
    account = orjson.dumps({"type": "service_account", "client_email": "x", "private_key": "no"})
    options = {"gemini": {"api_endpoint": "x", "project_id": "p", "location_id": "l"}}
    auth = {"gcp_use_service_account": True, "gcp_service_account_json": account.decode()}
    async with Faulty(Good()) as first, Faulty(Good()) as second:
        own = {
            "route_type": "llm/v1/chat",
            "auth": auth,
            "model": {
                "provider": "gemini",
                "name": "m",
                "model_alias": NAME,
                "options": {"upstream_url": first.origin, **options},
            },
            "weight": 200,
        }
        found = {
            "targets": [own, target("openai", second, NAME, "key", weight=100)],
            "balancer": {"algorithm": "priority", "failover_criteria": ["error"]},
        }
        async with running(found, "ai-proxy-advanced") as relay:
            assert (await answered(relay)).status == 200
        assert (first.connections, second.connections) == (0, 1)
