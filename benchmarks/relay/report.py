"""The relay's figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.relay import cases, pinned, processes
from benchmarks.relay.measure import ROUNDS, Figures, Row, Transfer

TRANSLATED_GOAL = 0.7
FULL = 0.9
"""A core that is less busy than this was not what limited the answers."""


def rows(measured: Iterable[Row], seconds: float) -> Iterable[str]:
    """The table's lines, as they come; pairs of figures are relay / proxy."""
    yield (
        f"Relay and a featureless aiohttp proxy, {_where()}; {ROUNDS} rounds in turn, together "
        f"{seconds:g} s each; medians, relay / proxy; the tickets are signed beforehand:"
    )
    yield ""
    yield (
        "| request | at once | answers/s | relay : proxy (rounds) | by CPU | CPU µs/answer "
        "| p50 ms | p99 ms | first byte ms | RSS MB, peak |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    notes: list[str] = []
    for row in measured:
        yield _line(row)
        notes += _notes(row)
    yield from ["", *notes] if notes else []


def _where() -> str:
    if not pinned.CAN_PIN:
        return "not pinned, because this system cannot"
    if processes.FIRST_CORE == processes.LAST_CORE:
        return "all on the one core that is here, client and upstream too"
    return "pinned to one core, client and upstream to another"


def _line(row: Row) -> str:
    ratios = row.ratios
    middle = ratios[len(ratios) // 2]
    relay, proxy = row.relay, row.other
    cells = (
        row.case.label,
        row.connections,
        _pair(row, "rate", ",.0f"),
        f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        f"{row.cpu_ratio:.2f}",
        f"{relay.cpu_per_answer:,.0f} / {proxy.cpu_per_answer:,.0f}",
        _pair(row, "p50", ".2f"),
        _pair(row, "p99", ".2f"),
        _pair(row, "first50", ".2f"),
        f"{_memory(relay)} / {_memory(proxy)}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _pair(row: Row, name: str, how: str) -> str:
    return f"{row.relay.median(name):{how}} / {row.other.median(name):{how}}"


def _memory(figures: Figures) -> str:
    return f"{figures.before:.0f} → {figures.after:.0f}, {figures.peak:.0f}"


def _notes(row: Row) -> Iterable[str]:
    if row.case.pause or row.connections == 1:
        return
    for name, figures in (("relay", row.relay), ("proxy", row.other)):
        if figures.busy < FULL:
            yield f"- {row.case.label}: the {name} was on the CPU {figures.busy:.0%} of the time."


def translated(measured: Iterable[Row], seconds: float) -> Iterable[str]:
    """The lines of the table of translated streams; pairs of figures are translated / passed."""
    yield (
        f"Streams that the relay translates for an OpenAI client beside one of OpenAI's that it "
        f"passes on, each of {cases.CHUNKS} chunks, with log_statistics; the relay {_where()}; "
        f"{ROUNDS} rounds in turn, together {seconds:g} s each; medians:"
    )
    yield ""
    yield (
        "| from | at once | answers/s | translated : passed (rounds) | goal | by CPU "
        "| CPU µs/answer | p50 ms |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in measured:
        ratios = row.ratios
        middle = ratios[len(ratios) // 2]
        cells = (
            row.case.label.partition(",")[0],
            row.connections,
            _pair(row, "rate", ",.0f"),
            f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            TRANSLATED_GOAL if middle >= TRANSLATED_GOAL else f"{TRANSLATED_GOAL}, missed",
            f"{row.cpu_ratio:.2f}",
            f"{row.relay.cpu_per_answer:,.0f} / {row.other.cpu_per_answer:,.0f}",
            _pair(row, "p50", ".2f"),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def transfers(measured: Iterable[Transfer]) -> Iterable[str]:
    """The second table's lines."""
    yield "100 MB through a fresh process, the same SHA-256 at both ends:"
    yield ""
    yield "| transfer | through | MB/s | RSS MB before | peak | growth |"
    yield "|---|---|---:|---:|---:|---:|"
    for each in measured:
        yield (
            f"| {each.name} | {each.system} | {each.rate:,.0f} | {each.before:.0f} "
            f"| {each.peak:.0f} | {each.peak - each.before:.0f} |"
        )
