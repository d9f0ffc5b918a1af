"""The figures of conversions as Markdown, each beside its goal."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.conversion.measure import ROUNDS, ChunkRow, RequestRow, Timed
from benchmarks.conversion.memory import MemoryRow

CHUNK_GOAL = 10.0
"""Microseconds, the mean over a stream."""
REQUEST_GOAL = 10.0
"""Milliseconds for 1 MB."""


def chunks(rows: Iterable[ChunkRow]) -> Iterable[str]:
    """The table's lines, as they come."""
    yield (
        "Streams for an OpenAI client, µs of CPU a chunk: read; read, learnt from and written; and "
        f"through all that the relay has between its sockets; medians of {ROUNDS} rounds (range):"
    )
    yield ""
    yield "| stream | chunks | read | converted | in the relay | goal |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in rows:
        yield (
            f"| {row.label} | {row.chunks:,} | {row.read} | {row.converted} | {row.passed} "
            f"| {_goal(row.passed, CHUNK_GOAL)} |"
        )


def requests(rows: Iterable[RequestRow]) -> Iterable[str]:
    """The table's lines, as they come."""
    yield (
        "Chat requests of 1 MB of OpenAI clients, JSON to JSON, ms of CPU; medians of "
        f"{ROUNDS} rounds (range):"
    )
    yield ""
    yield "| request | to | ms | goal |"
    yield "|---|---|---:|---:|"
    for row in rows:
        yield f"| {row.request} | {row.label} | {row.all} | {_goal(row.all, REQUEST_GOAL)} |"


def memory(rows: Iterable[MemoryRow]) -> Iterable[str]:
    """The table's lines, as they come."""
    yield "Answers for an OpenAI client, each in a fresh process; growth of its resident memory:"
    yield ""
    yield "| answer | from | MB | growth at most, MB | in the end, MB |"
    yield "|---|---|---:|---:|---:|"
    for row in rows:
        what = f"stream of {row.chunks:,} chunks" if row.chunks else "in one piece"
        yield f"| {what} | {row.label} | {row.size:.1f} | {row.peak:.1f} | {row.kept:.1f} |"


def _goal(timed: Timed, goal: float) -> str:
    return f"{goal:g}" if timed.median <= goal else f"{goal:g}, missed"
