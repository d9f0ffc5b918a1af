"""What has no effect may be repeated without `non_idempotent`."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.faults import Faulty, Good
from tests.relays import running
from tests.unit.relay.clients import FILES, ask
from tests.unit.relay.clients import target as target_at
from tests.unit.relay.failover import CRITERIA, FAULTS, ONE_SHOT, Fault

ANSWERED = b'{"object":"list","data":[],"has_more":false,"first_id":"hello"}'


@pytest.mark.parametrize("criterion", CRITERIA)
async def test_get(criterion: str) -> None:
    """Of a file: the route's type names no model, so that all targets can answer."""
    faults = {name: each for name, each in FAULTS.items() if ONE_SHOT[0] in each.modes}
    assert await _wrong("GET", faults, criterion) == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_methods(method: str) -> None:
    faults = {
        name: FAULTS[name] for name in ("refused", "reset before the head", "reset in the body")
    }
    assert await _wrong(method, faults, "error") == []


async def _wrong(method: str, faults: dict[str, Fault], criterion: str) -> list[str]:
    wrong = []
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(Faulty(Good()))
        second = await stack.enter_async_context(Faulty(Good()))
        balancer = {"algorithm": "priority", "failover_criteria": [criterion]}
        targets = [
            target_at(first.origin, FILES, weight=200),
            target_at(second.origin, FILES, weight=100),
        ]
        found = {"targets": targets, "balancer": balancer}
        relay = await stack.enter_async_context(running(found, "ai-proxy-advanced"))
        for name, fault in faults.items():
            await first.become(fault.step)
            await second.become(Good())
            async with asyncio.timeout(20):
                answer = await ask(relay, method, "/v1/files/file-1", b"", {})
            # A 404 says only that this target has not the file.
            over = criterion in fault.criteria.split() or fault.told == 404
            status, asked = (200, 1) if over else (fault.told, 0)
            if (answer.status, len(second.received)) != (status, asked) or len(first.heads) > 1:
                wrong.append(f"{name}: {answer}, {len(second.received)}, {len(first.heads)}")
            if over and answer.body != ANSWERED:
                wrong.append(f"{name}: {answer.body!r}")
    return wrong
