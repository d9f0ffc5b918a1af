"""Each fault meets each word of `failover_criteria`: one-shot and streamed, of the client's own
format (whose bytes pass) and of another (which is converted), where a request that was sent may be
repeated and where it may not."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.relay.failover import (
    CRITERIA,
    FAULTS,
    HANGS,
    Fault,
    Pairs,
    complaints,
    pairs,
)

OWN, OTHER = ("openai", "anthropic"), ("anthropic", "openai")
LIMITS = {"connect_timeout": 250, "read_timeout": 250, "write_timeout": 250}
TRIES = 3
WORLDS = [
    pytest.param(criteria, order, id=f"{name}-{order[0]}")
    for name, criteria in {
        **{word: [word, "non_idempotent"] for word in CRITERIA},
        "all but non_idempotent": list(CRITERIA),
    }.items()
    for order in (OWN, OTHER)
]


def leads_on(fault: Fault, criteria: list[str]) -> bool:
    """What is to happen, as nginx has it for proxy_next_upstream."""
    named = any(word in criteria for word in fault.criteria.split())
    return named and (not fault.sent or "non_idempotent" in criteria)


@pytest.mark.parametrize(("criteria", "order"), WORLDS)
async def test_faults(criteria: list[str], order: tuple[str, str]) -> None:
    async with pairs(FAULTS, criteria, order) as found:
        wrong = []
        for name, fault in FAULTS.items():
            for mode in fault.modes:
                over = leads_on(fault, criteria)
                wrong += await complaints(found, name, fault, mode, over=over)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("criteria", "order"), WORLDS)
async def test_silence(criteria: list[str], order: tuple[str, str]) -> None:
    """All at the same time, since each of them takes its time. Where the machine was too busy for
    a good answer in that time, a cell is looked at again, by itself."""
    cells = {
        f"{name}, {mode}": (fault, mode) for name, fault in HANGS.items() for mode in fault.modes
    }
    faults = {name: fault for name, (fault, _) in cells.items()}
    async with pairs(faults, criteria, order, **LIMITS) as found:
        wrong = await asyncio.gather(
            *(_wrong(found, name, *cell, criteria) for name, cell in cells.items())
        )
    assert not any(wrong), "\n".join(each for cell in wrong for each in cell)


async def _wrong(
    found: Pairs, name: str, fault: Fault, mode: str, criteria: list[str]
) -> list[str]:
    over = leads_on(fault, criteria)
    wrong = await complaints(found, name, fault, mode, over=over)
    for _ in range(TRIES - 1):
        if not wrong:
            break
        async with found.alone:
            wrong = await complaints(found, name, fault, mode, over=over)
    return wrong
