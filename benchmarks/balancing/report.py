"""The figures of choices as Markdown, beside their goal."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks.balancing.measure import TARGETS, WORKERS, Figure, Row
from benchmarks.conversion.measure import ROUNDS

GOAL = 20.0
"""Microseconds, on a machine whose speed is 1.0."""


def choices(rows: Iterable[Row]) -> Iterable[str]:
    """The table's lines, as they come."""
    yield (
        f"Choosing among {TARGETS} targets on a node of {WORKERS} workers, µs of CPU; medians of "
        f"{ROUNDS} rounds (range). Speed: CPU seconds for ten million additions in a Python loop, "
        "measured in each round, 1.0 on a good machine; behind each figure what it would be there, "
        f"where the goal is {GOAL:g}:"
    )
    yield ""
    yield "| algorithm | speed | first | there | one breaker open | there | next one | there |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        cells = " | ".join(map(_cells, (row.first, row.troubled, row.second)))
        yield f"| {row.label} | {median(row.first.machine):.2f} | {cells} |"


def _cells(figure: Figure | None) -> str:
    if figure is None:
        return " | "
    missed = "" if figure.there <= GOAL else ", missed"
    return f"{figure} | {figure.there:.1f}{missed}"
