"""One target after the other: how often, and what the client is told at the end."""

from __future__ import annotations

import asyncio
import email.utils
import time
from typing import Any

import pytest

from tests.faults import (
    ErrorEvent,
    Good,
    Hang,
    Refuse,
    Reset,
    Status,
    Step,
)
from tests.unit.relay.clients import (
    client,
)
from tests.unit.relay.failover import (
    LONG_MS,
    NAME,
    SHORT_MS,
    answered,
    error,
    log_lines,
    providers,
    question,
    said,
    targets,
)

# ---- how often


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (1, 2), (5, 6), (None, 6), (20, 7)])
async def test_there_are_so_many_retries_and_no_target_is_asked_twice(
    retries: int | None, asked: int
) -> None:
    bound = {} if retries is None else {"retries": retries}
    async with providers(*[Status(503)] * 7) as places, targets(*places, balancer=bound) as relay:
        assert (await answered(relay)).status == 503
        counts = [len(place.received) for place in places]
        assert counts == [1] * asked + [0] * (7 - asked)


async def test_the_log_names_all_that_were_asked() -> None:
    lines: list[dict[str, Any]] = []
    steps = (Refuse(), Status(503), Reset(), Good())
    with log_lines(lines):
        async with providers(*steps) as places, targets(*places) as relay:
            assert (await answered(relay)).status == 200
            await relay.settled()
            ports = [place.port for place in places]
    assert len(lines) == 1
    tried = lines[0]["ai"]["proxy"]["tried_targets"]
    assert [each["port"] for each in tried] == ports
    assert [each.get("ip") for each in tried] == [None, "127.0.0.1", None, "127.0.0.1"]
    assert lines[0]["status"] == 200
    assert "failure" not in lines[0]
    assert lines[0]["ai"]["proxy"]["usage"]["total_tokens"] == 5


async def test_a_client_that_has_left_makes_nobody_be_asked_any_more() -> None:
    async with (
        providers(Hang(), Good()) as (first, second),
        targets(first, second, read_timeout=LONG_MS) as relay,
    ):
        async with client(relay) as one:
            await one.ask(body=question(NAME, stream=False))
            async with asyncio.timeout(5):
                while not first.received:
                    await asyncio.sleep(0.001)
        await relay.settled()
        assert second.connections == 0


# ---- what the client is told when all have failed


@pytest.mark.parametrize(
    ("steps", "status", "message"),
    [
        ([Status(500, message="one"), Status(503, message="two")], 503, "two"),
        ([Status(503, message="one"), Refuse()], 503, "one"),
        ([Refuse(), Status(503, message="two")], 503, "two"),
        ([Status(429, message="one"), Hang()], 429, "one"),
        ([Hang(), Refuse()], 502, "the provider cannot be reached"),
        ([Refuse(), Hang()], 504, "the provider did not answer in time"),
        ([Refuse(), Status(400, message="two"), Good()], 400, "two"),
        ([Status(503), Status(401, message="two"), Good()], 401, "two"),
    ],
)
@pytest.mark.parametrize("order", [["openai", "anthropic"], ["anthropic", "openai"]])
async def test_the_last_answer_of_a_provider_counts(
    steps: list[Step], status: int, message: str, order: list[str]
) -> None:
    names = [*order, "openai"][: len(steps)]
    limit = SHORT_MS if any(isinstance(each, Hang) for each in steps) else LONG_MS
    async with (
        providers(*steps) as places,
        targets(*places, providers=names, read_timeout=limit) as relay,
    ):
        found = await answered(relay)
        assert (found.status, error(found)) == (status, message)


async def test_the_last_error_in_a_stream_is_a_status() -> None:
    steps = (ErrorEvent(500, message="one"), ErrorEvent(529, message="two"))
    async with providers(*steps) as places, targets(*places) as relay:
        found = await answered(relay, stream=True)
        assert (found.status, error(found)) == (529, "two")
        assert found.headers["content-type"] == "application/json"


# ---- Retry-After


async def test_only_a_status_that_is_listed_makes_a_target_rest() -> None:
    script = (Status(429, retry_after="30"), Good("me again"))
    async with (
        providers(script, Good("the other")) as places,
        targets(*places, criteria=["error", "non_idempotent"]) as relay,
    ):
        assert (await answered(relay)).status == 429
        assert said(await answered(relay), "one-shot") == "me again"


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_target_that_asks_for_a_rest_gets_it(status: int, form: str) -> None:
    wait = "30" if form == "seconds" else email.utils.formatdate(time.time() + 30, usegmt=True)
    script = (Status(status, retry_after=wait), Good("me again"))
    async with (
        providers(script, Good("the other")) as (first, second),
        targets(first, second) as relay,
    ):
        heard = [said(await answered(relay), "one-shot") for _ in range(3)]
        assert heard == ["the other"] * 3
        assert (len(first.received), len(second.received)) == (1, 3)
        await second.become(Status(500))
        assert said(await answered(relay), "one-shot") == "me again"


async def test_a_rest_that_nobody_can_wait_for_is_cut_short() -> None:
    """All rest: they are asked all the same."""
    tired = (Status(429, retry_after="60"), Good())
    async with providers(tired, tired) as places, targets(*places) as relay:
        found = await answered(relay)
        assert (found.status, found.headers["retry-after"]) == (429, "60")
        assert (await answered(relay)).status == 200


async def test_a_rest_ends() -> None:
    script = (Status(429, retry_after="1"), Good("me again"))
    async with (
        providers(script, Good("the other")) as places,
        targets(*places) as relay,
    ):
        async with asyncio.timeout(10):
            assert said(await answered(relay), "one-shot") == "the other"
            started = time.monotonic()
            while said(await answered(relay), "one-shot") == "the other":
                await asyncio.sleep(0.02)
        assert time.monotonic() - started > 0.5


async def test_the_last_retry_after_reaches_the_client() -> None:
    steps = (Status(503, retry_after="3"), Status(429, retry_after="7"))
    async with providers(*steps) as places, targets(*places) as relay:
        found = await answered(relay)
        assert (found.status, found.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("wait", ["", "soon", "-5", "1e9", "0", "Mon, 99 Xxx 2020", "7" * 400])
async def test_a_retry_after_that_makes_no_sense_does_no_harm(wait: str) -> None:
    script = (Status(503, retry_after=wait), Good())
    async with providers(script, Good()) as places, targets(*places) as relay:
        assert (await answered(relay)).status == 200
        assert (await answered(relay)).status == 200


# ---- circuit breaker


async def test_after_max_fails_a_target_is_not_asked() -> None:
    async with (
        providers(Reset(), Good()) as (first, second),
        targets(first, second, max_fails=2, fail_timeout=LONG_MS) as relay,
    ):
        for _ in range(4):
            assert (await answered(relay)).status == 200
        assert (len(first.received), len(second.received)) == (2, 4)


async def test_when_all_targets_are_out_the_client_is_told() -> None:
    async with (
        providers(Reset(), Reset()) as places,
        targets(*places, max_fails=1, fail_timeout=LONG_MS) as relay,
    ):
        assert (await answered(relay)).status == 502
        found = await answered(relay)
        assert (found.status, error(found)) == (500, "no available targets")


async def test_a_probe_brings_a_target_back() -> None:
    script = (Reset(), Good("me again"))
    async with (
        providers(script, Good("the other")) as places,
        targets(*places, max_fails=1, fail_timeout=50) as relay,
    ):
        heard = said(await answered(relay), "one-shot")
        assert heard == "the other"
        async with asyncio.timeout(10):
            while said(await answered(relay), "one-shot") != "me again":
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("status", [403, 404])
async def test_some_failures_never_open_the_breaker(status: int) -> None:
    async with (
        providers(Status(status), Good()) as (first, second),
        targets(first, second, max_fails=1, fail_timeout=LONG_MS) as relay,
    ):
        for _ in range(3):
            assert (await answered(relay)).status == 200
        assert len(first.received) == 3
