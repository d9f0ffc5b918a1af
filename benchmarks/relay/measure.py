"""Rounds in turn: the machine may be busy with other things, so what is compared is neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

from benchmarks.relay import cases
from benchmarks.relay.load import Job, Slice
from benchmarks.relay.processes import LAST_CORE, Load, System, child, printed, system
from kong_ai_proxy.relay.once import Once

ROUNDS = 5
WARM = 0.2
TICKETS_A_SECOND = 5000.0
"""Signed ahead while it is not known how many are needed; later as many as the last round had."""
BULK_ROUNDS = 3


@dataclass
class Figures:
    """One system with one case, over all rounds."""

    slices: list[Slice] = field(default_factory=list)
    cpu: float = 0.0
    """Seconds, warm-ups included."""
    elapsed: float = 0.0
    before: float = 0.0
    after: float = 0.0
    peak: float = 0.0

    def median(self, name: str) -> float:
        """The median over the rounds of one of a Slice's figures."""
        return float(median(getattr(each, name) for each in self.slices))

    @property
    def cpu_per_answer(self) -> float:
        """Microseconds."""
        return self.cpu / sum(each.answers for each in self.slices) * 1e6

    @property
    def busy(self) -> float:
        """How much of the time it had the core."""
        return self.cpu / self.elapsed


@dataclass
class Row:
    """A case with so many connections, through the relay, and what that is compared with: the
    same through the proxy, or another case through the relay."""

    case: cases.Case
    connections: int
    relay: Figures = field(default_factory=Figures)
    other: Figures = field(default_factory=Figures)

    @property
    def ratios(self) -> list[float]:
        """Relay : other of each round, the least first."""
        pairs = zip(self.relay.slices, self.other.slices, strict=True)
        return sorted(relay.rate / other.rate for relay, other in pairs)

    @property
    def cpu_ratio(self) -> float:
        """The same from the CPU for an answer, which other processes disturb less."""
        return self.other.cpu_per_answer / self.relay.cpu_per_answer


@dataclass(frozen=True)
class Transfer:
    """100 MB one way through a process that did nothing before."""

    name: str
    system: str
    rate: float
    """MB/s, median."""
    before: float
    peak: float


@dataclass(frozen=True)
class Bench:
    """The processes of a run, or of a part of it."""

    load: Load
    relay: System
    proxy: System

    def row(self, case: cases.Case, connections: int, seconds: float) -> Row:
        """Measure each system for `seconds`. Raises RuntimeError for a wrong answer."""
        row = Row(case, connections)
        self._rounds(row, [(self.proxy, case), (self.relay, case)], seconds)
        return row

    def translated(self, case: cases.Case, connections: int, seconds: float) -> Row:
        """The same of a stream that the relay translates, and one that it passes on."""
        row = Row(case, connections)
        self._rounds(row, [(self.relay, cases.STREAM), (self.relay, case)], seconds)
        return row

    def _rounds(self, row: Row, measured: list[tuple[System, cases.Case]], seconds: float) -> None:
        sides = list(zip(measured, (row.other, row.relay), strict=True))
        for (each, case), figures in sides:
            self.load.do(Job(case.name, each.port, int(each.ticketed)))
            figures.before = each.rss()
            each.forget_peak()
        rate, slice_seconds = TICKETS_A_SECOND, max(seconds / ROUNDS, 2 * row.case.takes)
        for n in range(ROUNDS):
            for (each, case), figures in sides if n % 2 == 0 else sides[::-1]:
                ahead = row.connections + int(rate * (WARM + slice_seconds))
                self._slice(case, row.connections, each, figures, ahead, slice_seconds)
            rate = max(figures.slices[-1].rate for _, figures in sides)
        for (each, _), figures in sides:
            figures.after, figures.peak = each.rss(), each.peak()

    def _slice(
        self,
        case: cases.Case,
        connections: int,
        measured: System,
        figures: Figures,
        ahead: int,
        seconds: float,
    ) -> None:
        tickets = ahead if measured.ticketed else 0
        cpu = measured.cpu()
        job = Job(case.name, measured.port, tickets, connections, WARM, seconds)
        figures.slices.append(self.load.do(job))
        figures.cpu += measured.cpu() - cpu
        figures.elapsed += WARM + seconds

    def transfer(self, name: str, measured: System) -> Transfer:
        """100 MB, some times. Raises RuntimeError when its digest is wrong at the other end."""
        tickets = int(measured.ticketed)
        self.load.do(Job(cases.CASES[0].name, measured.port, tickets))
        before = measured.rss()
        measured.forget_peak()
        job = Job(name, measured.port, tickets)
        rates = [self.load.do(job).rate for _ in range(BULK_ROUNDS)]
        return Transfer(name, measured.name, median(rates), before, measured.peak())


@contextmanager
def bench(*, control: bool) -> Iterator[Bench]:
    """Fresh processes. `control` puts a second proxy in the relay's place."""
    with ExitStack() as stack:
        once = Once.create(1)
        stack.callback(once.close)
        shared = once.fileno()
        port = int(printed(stack.enter_context(child("upstream", LAST_CORE))))
        load = Load(stack.enter_context(child("load", LAST_CORE, shared, descriptor=shared)))
        proxy = stack.enter_context(system("proxy", "baseline", port))
        relay = (
            system("second proxy", "baseline", port)
            if control
            else system("relay", "system", port, shared, descriptor=shared)
        )
        yield Bench(load, stack.enter_context(relay), proxy)


def rows(chosen: Sequence[str], seconds: float, *, control: bool) -> Iterator[Row]:
    """A row for each chosen case (all without names) and number of connections."""
    picked = [case for case in cases.CASES if not chosen or case.name in chosen]
    if not picked:
        return
    with bench(control=control) as found:
        for case in picked:
            for connections in case.connections:
                yield found.row(case, connections, seconds)


def translated(chosen: Sequence[str], seconds: float) -> Iterator[Row]:
    """A row for each chosen provider (all without names) whose stream is translated."""
    picked = [case for case in cases.TRANSLATED if not chosen or case.name in chosen]
    if not picked:
        return
    with bench(control=False) as found:
        for case in picked:
            for connections in case.connections:
                yield found.translated(case, connections, seconds)


def transfers(chosen: Sequence[str], *, control: bool) -> Iterator[Transfer]:
    """The chosen ones of upload and download, through each system."""
    for name in (cases.UPLOAD, cases.DOWNLOAD):
        if not chosen or name in chosen:
            with bench(control=control) as found:
                for measured in (found.relay, found.proxy):
                    yield found.transfer(name, measured)
