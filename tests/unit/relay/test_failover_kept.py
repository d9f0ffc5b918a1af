"""Files, batches and other things that one of several targets keeps: who has them is asked for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.faults import Faulty, Good, Refuse, Status, Step
from tests.relays import RunningRelay, running
from tests.unit.relay.clients import FILES, JSON, Answer, ask, target
from tests.unit.relay.failover import error, providers

BATCHES = "llm/v1/batches"
LACKS = Status(404, message="No such File object: file-1")
RESPONSES = "llm/v1/responses"
UNKNOWN = "not found so far: not every target could be asked, and each has things of its own"


@contextlib.asynccontextmanager
async def kept_by(
    *places: Faulty, route_type: str = FILES, **balancer: Any
) -> AsyncIterator[RunningRelay]:
    """A relay that asks these in their order, with Kong's own failover_criteria unless told."""
    targets = [target(each.origin, route_type, weight=99 - at) for at, each in enumerate(places)]
    found = {"targets": targets, "balancer": {"algorithm": "priority", **balancer}}
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
