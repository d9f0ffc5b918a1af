"""Files, batches and other things that one of several targets keeps: who has them is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kong_ai_proxy.providers.files import file_id
from tests.faults import Faulty, Good, Refuse, Reset, Status, Step
from tests.relays import RunningRelay, running
from tests.unit.relay.clients import FILES, JSON, Answer, ask, target
from tests.unit.relay.failover import LOGGED, answered, error, log_lines, providers, targets

BATCHES = "llm/v1/batches"
LACKS = Status(404, message="No such File object: file-1")
RESPONSES = "llm/v1/responses"
UNKNOWN = "not found so far: not every target could be asked, and each has things of its own"


@contextlib.asynccontextmanager
async def kept_by(
    *places: Faulty, route_type: str = FILES, **balancer: Any
) -> AsyncIterator[RunningRelay]:
    """A relay that asks these in their order, with Kong's own failover_criteria unless told."""
    own = [target(each.origin, route_type, weight=99 - at) for at, each in enumerate(places)]
    found = {"targets": own, "balancer": {"algorithm": "priority", **balancer}}
    async with running(found, "ai-proxy-advanced") as relay:
        yield relay


async def asked(
    *steps: Step, method: str = "GET", path: str = "/v1/files/file-1", **more: Any
) -> tuple[Answer, list[int]]:
    """The answer, and how often each target was asked."""
    async with providers(*steps) as places, kept_by(*places, **more) as relay:
        body = b"{}" if method == "POST" else b""
        answer = await ask(relay, method, path, body, JSON if body else {})
        await relay.settled()
        return answer, [len(each.received) for each in places]


@pytest.mark.parametrize(
    ("method", "path", "route_type"),
    [
        ("GET", "/v1/files/file-1", FILES),
        ("GET", "/v1/files/file-1/content", FILES),
        ("DELETE", "/v1/files/file-1", FILES),
        ("POST", "/v1/batches/batch-1/cancel", BATCHES),
        ("POST", "/v1/batches", BATCHES),
        ("POST", "/v1/responses/resp-1/cancel", RESPONSES),
    ],
)
async def test_a_target_that_has_it_not_is_followed_by_the_next(
    method: str, path: str, route_type: str
) -> None:
    answer, counts = await asked(LACKS, Good(), method=method, path=path, route_type=route_type)
    assert (answer.status, counts) == (200, [1, 1])


async def test_looking_for_it_is_no_retry() -> None:
    answer, counts = await asked(LACKS, LACKS, LACKS, Good(), retries=0)
    assert (answer.status, counts) == (200, [1, 1, 1, 1])


async def test_what_nobody_has_is_a_404() -> None:
    answer, counts = await asked(LACKS, LACKS)
    assert (answer.status, counts) == (404, [1, 1])
    assert error(answer) == "No such File object: file-1"


@pytest.mark.parametrize("steps", [(Refuse(), LACKS), (LACKS, Refuse())])
async def test_who_could_not_say_leaves_it_open(steps: tuple[Step, Step]) -> None:
    answer, _ = await asked(*steps)
    assert answer.status == 502


@pytest.mark.parametrize("steps", [(Status(500), LACKS), (LACKS, Status(500))])
async def test_an_error_of_who_may_have_it_is_told(steps: tuple[Step, Step]) -> None:
    answer, counts = await asked(*steps, failover_criteria=["http_500"])
    assert (answer.status, counts) == (500, [1, 1])


async def test_a_target_that_may_not_be_asked_now_leaves_it_open() -> None:
    async with (
        providers(Status(500), LACKS) as (first, second),
        kept_by(first, second, max_fails=1, failover_criteria=["http_500"]) as relay,
    ):
        for _ in range(2):
            answer = await ask(relay, "GET", "/v1/files/file-1", b"", {})
        assert len(first.received) == 1
        assert (answer.status, error(answer)) == (503, UNKNOWN)


async def test_a_response_with_a_model_nobody_has_is_not_asked_for_everywhere() -> None:
    answer, counts = await asked(
        LACKS, Good(), method="POST", path="/v1/responses", route_type=RESPONSES
    )
    assert (answer.status, counts) == (404, [1, 0])


async def test_to_have_it_not_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with (
            providers(LACKS, Good()) as (first, second),
            kept_by(first, second, max_fails=1, failover_criteria=["http_404"]) as relay,
        ):
            for _ in range(3):
                assert (await ask(relay, "GET", "/v1/files/file-1", b"", {})).status == 200
            assert len(first.received) == 3
    assert not caplog.records


async def test_a_model_that_a_target_has_not_is_told_to_the_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Other requests than those that look for something do not expect it."""
    with caplog.at_level(logging.WARNING):
        async with providers(LACKS, Good()) as places, targets(*places) as relay:
            assert (await answered(relay)).status == 200
    assert [each.message.partition(" failed: ")[2] for each in caplog.records] == ["status 404"]


async def test_what_is_not_found_so_far_is_logged_past_a_target_that_cannot_be_asked() -> None:
    lines: list[dict[str, Any]] = []
    async with providers(LACKS, Good(), Status(500)) as places:
        own = [
            target(each.origin, FILES, weight=99 - at, logging=LOGGED)
            for at, each in enumerate(places)
        ]
        in_body = {"param_name": "key", "param_value": "secret", "param_location": "body"}
        own[1]["auth"] = in_body
        own[2]["weight"] = 100  # until its breaker is open
        balancer = {"algorithm": "priority", "max_fails": 1, "failover_criteria": ["http_500"]}
        configuration = {"targets": own, "balancer": balancer}
        async with running(configuration, "ai-proxy-advanced") as relay:
            assert (await ask(relay, "GET", "/v1/files/file-1", b"", {})).status == 500
            with log_lines(lines):
                assert (await ask(relay, "GET", "/v1/files/file-1", b"", {})).status == 503
                await relay.settled()
    (line,) = lines
    assert line["failure"] == UNKNOWN
    assert [each["port"] for each in line["ai"]["proxy"]["tried_targets"]] == [places[0].port]


async def test_a_target_that_was_not_asked_is_not_known_to_be_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That an id was not made there is certain without."""
    own = [target("", FILES, weight=99 - at) for at in range(2)]
    async with providers(Status(500), LACKS) as places:
        for each, place in zip(own, places, strict=True):
            each["model"] = {"provider": "gemini", "options": {"upstream_url": place.origin}}
        balancer = {"algorithm": "priority", "max_fails": 1, "failover_criteria": ["http_500"]}
        balancer["fail_timeout"] = 50
        configuration = {"targets": own, "balancer": balancer}
        async with running(configuration, "ai-proxy-advanced") as relay:
            known = file_id("input-chat-" + "a" * 20)
            assert (await ask(relay, "GET", f"/v1/files/{known}", b"", {})).status == 500
            async with asyncio.timeout(10):  # until its breaker lets it be asked
                while (await ask(relay, "GET", "/v1/files/file-odd", b"", {})).status != 404:
                    await asyncio.sleep(0.005)
            assert len(places[0].received) == 1
    assert "its breaker is open" in caplog.text
    assert "its breaker is closed" not in caplog.text


# ---- a batch is not made twice

MAKES: dict[str, Any] = {"method": "POST", "path": "/v1/batches", "route_type": BATCHES}
ANYTHING = ["error", "http_503", "non_idempotent"]


async def test_a_batch_that_may_have_been_made_is_not_made_again() -> None:
    answer, counts = await asked(Reset(), Good(), failover_criteria=ANYTHING, **MAKES)
    assert (answer.status, counts) == (502, [1, 0])


@pytest.mark.parametrize(("step", "times"), [(Refuse(), 0), (Status(503), 1)])
async def test_a_batch_that_was_certainly_not_made_is_made_elsewhere(
    step: Step, times: int
) -> None:
    answer, counts = await asked(step, Good(), failover_criteria=ANYTHING, **MAKES)
    assert (answer.status, counts) == (200, [times, 1])


async def test_a_target_that_says_that_it_has_it_not_is_well_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    balancer: dict[str, Any] = {"max_fails": 1, "fail_timeout": 50}
    balancer["failover_criteria"] = ["http_500"]
    async with (
        providers((Status(500), LACKS), Good()) as places,
        kept_by(*places, **balancer) as relay,
    ):
        async with asyncio.timeout(10):
            while "its breaker is closed" not in caplog.text:
                assert (await ask(relay, "GET", "/v1/files/file-1", b"", {})).status == 200
                await asyncio.sleep(0.005)
