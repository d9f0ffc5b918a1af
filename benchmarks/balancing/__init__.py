"""Targets chosen: how long a choice takes, and what becomes of thousands of them."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.balancing import measure, report


def lines(seconds: float) -> Iterable[str]:
    """Measure, each row for about `seconds`: the table, as it comes."""
    return report.choices(measure.rows(seconds))
