"""Targets whose provider cannot be asked this, as turns out once it is to be asked: it is nobody's
failure, and no try."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from tests.faults import Faulty, Status
from tests.relays import running
from tests.unit.relay.clients import JSON, Answer, ask
from tests.unit.relay.failover import error, providers

GENERATIONS = "image/v1/images/generations"
ODD_SIZE = orjson.dumps({"prompt": "a river", "size": "1000x1000"})
"""Nova Canvas makes multiples of 16."""
BUSY = Status(503, message="overloaded")


def nova(place: Faulty) -> dict[str, Any]:
    options = {"upstream_url": place.origin, "bedrock": {"aws_region": "eu-central-1"}}
    auth = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret"}
    model = {"provider": "bedrock", "name": "amazon.nova-canvas-v1:0", "options": options}
    return {"route_type": GENERATIONS, "auth": auth, "model": model}


def flash(place: Faulty) -> dict[str, Any]:
    auth = {"header_name": "x-goog-api-key", "header_value": "key"}
    options = {"upstream_url": place.origin}
    model = {"provider": "gemini", "name": "gemini-2.5-flash-image", "options": options}
    return {"route_type": GENERATIONS, "auth": auth, "model": model}


async def asked(*makes: Any, **balancer: Any) -> tuple[Answer, list[int]]:
    """The answer, and how often each target was asked, in their order."""
    async with providers(*(BUSY for _ in makes)) as places:
        rows = zip(makes, places, strict=True)
        targets = [{**make(place), "weight": 99 - at} for at, (make, place) in enumerate(rows)]
        criteria = ["http_503", "non_idempotent"]
        own = {"algorithm": "priority", "failover_criteria": criteria, **balancer}
        configuration = {"targets": targets, "balancer": own, "genai_category": "image/generation"}
        async with running(configuration, "ai-proxy-advanced") as relay:
            answer = await ask(relay, "POST", "/images", ODD_SIZE, JSON)
            await relay.settled()
        return answer, [len(each.received) for each in places]


async def test_passing_over_a_target_is_no_retry() -> None:
    answer, counts = await asked(nova, nova, flash, retries=0)
    assert (answer.status, counts) == (503, [0, 0, 1])


async def test_a_failure_tells_more_than_that_another_target_cannot_be_asked() -> None:
    answer, counts = await asked(flash, nova, retries=1)
    assert (answer.status, counts) == (503, [1, 0])


async def test_where_nobody_can_be_asked_the_client_is_told_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        answer, counts = await asked(nova, nova)
    assert (answer.status, counts) == (400, [0, 0])
    assert error(answer).startswith("size: ")
    assert not caplog.records
