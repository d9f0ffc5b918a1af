"""`python -m benchmarks.balancing.simulation`: what each algorithm makes of targets that get slow,
fail and recover, drawn into docs/balancing/.

Four targets, and a minute each in which all are well, B answers five times as slowly, C fails, and
all are well again. Requests come at random, 25 a second. The balancer and the states are those that
serve; only the clock and the targets are made up. The numbers are random and always the same ones.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.balancing import chart
from kong_ai_proxy.balancer.rounds import Balancer, Round
from kong_ai_proxy.balancer.states import States, Table
from kong_ai_proxy.config import AiProxyAdvanced, parse
from kong_ai_proxy.relay.balancing import MAX_LATENCY

PICTURES = Path(__file__).parents[2] / "docs" / "balancing"
TARGETS = "ABCD"
PHASES = ("all well", "B is slow", "C fails", "all well again")
PHASE = 60.0
"""Seconds."""
RATE = 25.0
"""Requests a second."""
BEGIN = 1000.0
"""What the clock shows at first: no clock shows 0."""
SLOWER = 5.0
FAILS_IN = 0.05
"""Seconds."""
KEYS = 20_000
"""Different values of the header that is hashed."""
BIN = 3.0
"""Seconds that a point of the chart is made of."""

_SLOW, _FAILS = PHASES.index("B is slow"), PHASES.index("C fails")
_B, _C = TARGETS.index("B"), TARGETS.index("C")


@dataclass(frozen=True)
class Scenario:
    """An algorithm and the targets it has. All by target: A, B, C, D."""

    algorithm: str
    told: tuple[str, str, str, str]
    """What the legend says of each."""
    weights: tuple[int, ...] = (100, 100, 100, 100)
    seconds: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)
    """Mean length of an answer, in time."""
    tokens: tuple[int, ...] = (500, 500, 500, 500)
    """Mean length of an answer, in tokens."""
    topics: tuple[tuple[float, tuple[tuple[int, ...], ...]], ...] = ()
    """Of semantic: how many of the prompts (a share), and the tiers they have."""


def _weighted(*weights: int) -> tuple[str, str, str, str]:
    a, b, c, d = (f"weight {weight}" for weight in weights)
    return (a, b, c, d)


SCENARIOS = (
    Scenario("round-robin", _weighted(40, 30, 20, 10), weights=(40, 30, 20, 10)),
    Scenario("consistent-hashing", _weighted(40, 30, 20, 10), weights=(40, 30, 20, 10)),
    Scenario("least-connections", _weighted(100, 100, 100, 100)),
    Scenario(
        "lowest-usage",
        ("200 tokens", "400 tokens", "400 tokens", "800 tokens"),
        tokens=(200, 400, 400, 800),
    ),
    Scenario("lowest-latency", ("1 s", "0.5 s", "0.7 s", "0.9 s"), seconds=(1.0, 0.5, 0.7, 0.9)),
    Scenario("priority", _weighted(50, 50, 100, 10), weights=(50, 50, 100, 10)),
    Scenario(
        "semantic",
        ("code", "code", "law", "CATCHALL"),
        topics=((0.5, ((0, 1), (3,))), (0.4, ((2,), (3,))), (0.1, ((3,),))),
    ),
)


class Asked(NamedTuple):
    """A target was asked: when (seconds from the beginning), which, and whether it answered."""

    at: float
    target: int
    answered: bool


@dataclass
class Outcome:
    """What came of a scenario."""

    asked: list[Asked] = field(default_factory=list)
    requests: int = 0
    lost: int = 0
    """Requests that no target answered."""

    def shares(self, phase: int) -> list[float]:
        """Of what was asked in a phase, each target's share."""
        return _shares(each.target for each in self.asked if each.at // PHASE == phase)

    def over_time(self) -> Iterator[list[float]]:
        """Each target's share in every BIN."""
        bins: list[list[int]] = [[] for _ in range(round(len(PHASES) * PHASE / BIN))]
        for each in self.asked:
            if each.at < len(bins) * BIN:
                bins[int(each.at // BIN)].append(each.target)
        return map(_shares, bins)


def _shares(targets: Iterator[int] | Sequence[int]) -> list[float]:
    counts = Counter(targets)
    return [counts[target] / (counts.total() or 1) for target in range(len(TARGETS))]


def config(scenario: Scenario) -> AiProxyAdvanced:
    """The configuration that is simulated."""
    targets = [
        {
            "route_type": "llm/v1/chat",
            "weight": weight,
            "description": told,
            "model": {"provider": "openai", "name": f"model-{name}"},
        }
        for name, told, weight in zip(TARGETS, scenario.told, scenario.weights, strict=True)
    ]
    # What finds the tiers of semantic is not simulated: the tiers are given.
    algorithm = "round-robin" if scenario.topics else scenario.algorithm
    balancer = {
        "algorithm": algorithm,
        "latency_strategy": "e2e",
        "max_fails": 3,
        "fail_timeout": 10_000,
    }
    found = parse("ai-proxy-advanced", {"targets": targets, "balancer": balancer})
    assert isinstance(found, AiProxyAdvanced)
    return found


def run(scenario: Scenario, seed: int = 1) -> Outcome:
    """Simulate a scenario to its end."""
    return _Run(scenario, Random(seed)).outcome


class _Run:
    """Events in the order of their times; each may cause others."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        settings = config(scenario)
        self.outcome = Outcome()
        self._scenario = scenario
        self._random = random
        self._states: States = Table.private().states("simulation", settings)
        self._balancer = Balancer(settings, self._states, random.random)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._ids = itertools.count()
        self._at(0.0, self._arrive)
        while self._events:
            at, _, event = heapq.heappop(self._events)
            event(at)

    def _at(self, at: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at, next(self._ids), event))

    def _arrive(self, at: float) -> None:
        self.outcome.requests += 1
        self._ask(self._round(), at)
        after = at + self._random.expovariate(RATE)
        if after < len(PHASES) * PHASE:
            self._at(after, self._arrive)

    def _round(self) -> Round:
        everybody, topics = range(len(TARGETS)), self._scenario.topics
        if topics:
            (tiers,) = self._random.choices(
                [tiers for _, tiers in topics], [share for share, _ in topics]
            )
            return self._balancer.round(everybody, tiers=tiers)
        return self._balancer.round(everybody, key=f"user-{self._random.randrange(KEYS)}")

    def _ask(self, round_: Round, at: float) -> None:
        target = round_.next(BEGIN + at)
        if target is None:
            self.outcome.lost += 1
            return
        self._states.begin(target)
        phase = int(at // PHASE)
        fails = phase == _FAILS and target == _C
        self.outcome.asked.append(Asked(at, target, not fails))
        if fails:
            self._at(at + FAILS_IN, lambda now: self._failed(round_, target, now))
        else:
            mean = self._scenario.seconds[target]
            if phase == _SLOW and target == _B:
                mean *= SLOWER
            seconds = mean * self._random.uniform(0.8, 1.2)
            self._at(at + seconds, lambda now: self._answered(target, seconds, now))

    def _failed(self, round_: Round, target: int, at: float) -> None:
        self._states.end(target)
        self._states.failed(target, BEGIN + at)
        twice = 2 * max(self._states.latencies(BEGIN + at))
        self._states.took(target, min(twice, MAX_LATENCY), BEGIN + at)  # as the relay has it
        self._ask(round_, at)

    def _answered(self, target: int, seconds: float, at: float) -> None:
        completion = round(self._random.expovariate(1 / self._scenario.tokens[target]))
        self._states.end(target)
        self._states.used(target, 0, completion, 0.0)
        self._states.took(target, seconds, BEGIN + at)
        self._states.succeeded(target, BEGIN + at)


def picture(scenario: Scenario, outcome: Outcome) -> str:
    """The chart of what came of a scenario, SVG."""
    series = [
        chart.Series(f"{name}: {told}", shares)
        for name, told, shares in zip(
            TARGETS, scenario.told, zip(*outcome.over_time(), strict=True), strict=True
        )
    ]
    return chart.svg(
        f"{scenario.algorithm}: each target's share of the requests", PHASES, PHASE, series
    )


def main() -> None:
    """Simulate, draw, and print the shares."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        outcome = run(scenario)
        path = PICTURES / f"{scenario.algorithm}.svg"
        path.write_text(picture(scenario, outcome), encoding="utf-8")
        print(f"{scenario.algorithm}: {outcome.requests} requests, {outcome.lost} lost")
        for phase, told in enumerate(PHASES):
            shares = "  ".join(
                f"{name} {share:6.1%}"
                for name, share in zip(TARGETS, outcome.shares(phase), strict=True)
            )
            print(f"  {told:<15} {shares}")


if __name__ == "__main__":
    main()
