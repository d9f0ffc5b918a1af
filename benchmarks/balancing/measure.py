"""Choices among many targets, in CPU time, with the states of a node of eight workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from time import monotonic, process_time

from benchmarks.conversion.measure import Timed, rounds
from kong_ai_proxy.balancer.consistent_hashing import ConsistentHashing, seeds
from kong_ai_proxy.balancer.memory import Memory, size
from kong_ai_proxy.balancer.round_robin import round_robin
from kong_ai_proxy.balancer.rounds import Balancer, Round
from kong_ai_proxy.balancer.states import States, Table
from kong_ai_proxy.config import AiProxyAdvanced, parse

ALGORITHMS = (
    "round-robin",
    "consistent-hashing",
    "least-connections",
    "lowest-usage",
    "lowest-latency",
    "priority",
    "semantic",
)
TARGETS = 100
WORKERS = 8
MOST_SLOTS = 65_536
RECORDS = 1024
SINGLE_CHOICES = 500
"""Choices that are timed together."""
ADDITIONS = 10_000_000

_Choose = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """Microseconds for a choice with one algorithm."""

    label: str
    first: Timed
    """All targets are well."""
    troubled: Timed | None = None
    """One target's breaker is open."""
    second: Timed | None = None
    """Another target, after the first one failed."""


def machine() -> float:
    """How fast this machine is: CPU seconds for ADDITIONS in a loop, 1.0 on a good one."""
    begin, total = process_time(), 0
    while total < ADDITIONS:
        total += 1
    return process_time() - begin


def rows(seconds: float, targets: int = TARGETS) -> Iterator[Row]:
    """A row for each algorithm."""
    for algorithm in ALGORITHMS:
        well, failing = Case(algorithm, targets), Case(algorithm, targets)
        failing.open_a_breaker()
        runs = [_many(well.first), _many(failing.first), _many(well.second)]
        first, troubled, both = rounds(runs, seconds, 1e6 / SINGLE_CHOICES)
        pairs = zip(both.rounds, first.rounds, strict=True)
        yield Row(algorithm, first, troubled, Timed([both - one for both, one in pairs]))
    for label, weights in (("equal", (100,)), ("different", range(1, 101))):
        chosen = Random(7).choices(weights, k=targets)
        (first,) = rounds([lambda c=chosen: _new_slots(c)], seconds, 1e6 / SINGLE_CHOICES)  # type: ignore[misc]
        yield Row(f"consistent-hashing, {label} weights, a slot's first value", first)


def _many(choose: _Choose) -> _Choose:
    def run() -> None:
        for _ in range(SINGLE_CHOICES):
            choose()

    return run


def _new_slots(weights: Sequence[int]) -> None:
    """Values of which hardly any two have the same slot."""
    everybody = tuple(range(len(weights)))
    made = seeds([f"target {index}" for index in everybody])
    in_turn = round_robin(everybody, weights)
    choice = ConsistentHashing(everybody, weights, made, MOST_SLOTS, in_turn)
    for number in range(SINGLE_CHOICES):
        choice.pick(everybody, f"request {number}", 0.0)


class Case:
    """Targets of different weights that have served for a while."""

    def __init__(self, algorithm: str, targets: int) -> None:
        random = Random(7)
        weights = (100, 50) if algorithm == "priority" else range(1, 101)
        config = configuration(algorithm, random.choices(weights, k=targets))
        content = memoryview(bytearray(size(WORKERS, RECORDS)))
        memory = Memory(content, WORKERS, contextlib.nullcontext())
        # Another worker's part, then this one's.
        for slot in (1, 0):
            self._states: States = Table(memory, slot).states("benchmark", config)
            for index in range(targets):
                for _ in range(random.randrange(4)):
                    self._states.begin(index)
                self._states.used(index, 500, random.randrange(1000), 0.01)
                self._states.took(index, random.uniform(0.5, 2.0), monotonic())
        self._balancer = Balancer(config, self._states, random.random)
        self._candidates: Sequence[int] = tuple(range(targets))
        half = targets // 2
        self._tiers = (self._candidates[:half], self._candidates[half:])
        self._semantic = algorithm == "semantic"
        self._numbers = count()

    def first(self) -> int | None:
        """A request's choice."""
        return self._round().next(monotonic())

    def second(self) -> int | None:
        """A request's choice, and one more."""
        round_ = self._round()
        round_.next(monotonic())
        return round_.next(monotonic())

    def open_a_breaker(self) -> None:
        """One target fails, the one that would be asked now."""
        index = self.first()
        assert index is not None
        self._states.failed(index, monotonic())

    def _round(self) -> Round:
        if self._semantic:
            return self._balancer.round(self._candidates, tiers=self._tiers)
        key = f"request {next(self._numbers) % SINGLE_CHOICES}"
        return self._balancer.round(self._candidates, key=key)


def configuration(algorithm: str, weights: Sequence[int]) -> AiProxyAdvanced:
    """A configuration with a target for each weight. What finds the tiers of semantic is no part
    of this: they are given."""
    targets = [
        {
            "route_type": "llm/v1/chat",
            "weight": weight,
            "model": {"provider": "openai", "name": f"model-{number}"},
        }
        for number, weight in enumerate(weights)
    ]
    named = "round-robin" if algorithm == "semantic" else algorithm
    balancer = {"algorithm": named, "max_fails": 1, "fail_timeout": 1_000_000_000}
    found = parse("ai-proxy-advanced", {"targets": targets, "balancer": balancer})
    assert isinstance(found, AiProxyAdvanced)
    return found
