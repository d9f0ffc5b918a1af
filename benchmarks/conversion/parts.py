"""The parts of `python -m benchmarks` that convert."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from benchmarks.conversion import measure, memory, report

_LINES: Mapping[str, Callable[[float], Iterable[str]]] = {
    "chunks": lambda seconds: report.chunks(measure.chunk_rows(seconds)),
    "requests": lambda seconds: report.requests(measure.request_rows(seconds)),
    "memory": lambda _: report.memory(memory.rows()),
}
NAMES = tuple(_LINES)


def lines(part: str, seconds: float) -> Iterable[str]:
    """Measure one of NAMES, each row for about `seconds`: its table, as it comes."""
    return _LINES[part](seconds)
