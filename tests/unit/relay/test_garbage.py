"""What a request leaves behind goes at once: a body that waits for the garbage collector's next
round, with those of a thousand others, is memory that grows."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kong_ai_proxy.exchange.case import Case
from kong_ai_proxy.relay.client_body import ClientBody
from tests.faults import Good, Refuse, Status, Step
from tests.unit.relay.failover import answered, providers, targets

KINDS = (Case, ClientBody)


def alive() -> int:
    return sum(isinstance(each, KINDS) for each in gc.get_objects())


@contextlib.asynccontextmanager
async def without_collector() -> AsyncIterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
@pytest.mark.parametrize("before", [(), (Refuse(),), (Status(503),)], ids=["", "refused", "503"])
async def test_a_request_leaves_nothing_for_the_collector(
    before: tuple[Step, ...], vendor: str, stream: bool
) -> None:
    steps: Any = (*before, Good("hello"))
    async with (
        providers(*steps) as places,
        targets(*places, providers=[vendor] * len(places)) as relay,
    ):
        assert (await answered(relay, stream=stream)).status == 200
        await relay.settled()
        async with without_collector():
            for _ in range(3):
                assert (await answered(relay, stream=stream)).status == 200
            await relay.settled()
            assert alive() == 0
