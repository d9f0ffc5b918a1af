"""The figures of choices as Markdown, beside their goal."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.balancing.measure import TARGETS, WORKERS, Row
from benchmarks.conversion.measure import ROUNDS, Timed

GOAL = 20.0
"""Microseconds, on a machine whose speed is 1.0."""


def choices(rows: Iterable[Row], machine: float) -> Iterable[str]:
    """The table's lines, as they come. `machine`: seconds for ten million additions."""
    yield (
        f"Choosing among {TARGETS} targets on a node of {WORKERS} workers, µs of CPU; medians of "
        f"{ROUNDS} rounds (range). Ten million additions in a Python loop take this machine "
        f"{machine:.2f} s of CPU; divided by that, the median is what a machine that takes 1.0 s "
        f"would need, and that is what the goal of {GOAL:g} is for:"
    )
    yield ""
    yield "| algorithm | first | at 1.0 s | one breaker open | at 1.0 s | next one | at 1.0 s |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        cells = (_cells(timed, machine) for timed in (row.first, row.troubled, row.second))
        yield f"| {row.label} | {' | '.join(cells)} |"


def _cells(timed: Timed | None, machine: float) -> str:
    if timed is None:
        return " | "
    median = timed.median / machine
    return f"{timed} | {median:.1f}" if median <= GOAL else f"{timed} | {median:.1f}, missed"
