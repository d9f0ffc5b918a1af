"""Choices among many targets, in CPU time, with the states of a node of eight workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from statistics import median
from time import monotonic

from typing_extensions import override

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
ADDITIONS = 100_000
ALL_ADDITIONS = 10_000_000
_ADDING = compile(f"n = 0\nfor _ in range({ADDITIONS}): n += 1", "adding", "exec")

_Choose = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """Microseconds for a choice, a figure a round."""

    rounds: Sequence[float]
    machine: Sequence[float]
    """In each round: CPU seconds for ALL_ADDITIONS to a variable of a module, 1.0 on a good
    machine."""

    @property
    def there(self) -> float:
        """What it would be on a machine of 1.0."""
        pairs = zip(self.rounds, self.machine, strict=True)
        return median(each / machine for each, machine in pairs)

    def __sub__(self, other: Figure) -> Figure:
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Figure([each - less for each, less in pairs], self.machine)

    @override
    def __str__(self) -> str:
        return str(Timed(list(self.rounds)))


@dataclass(frozen=True)
class Row:
    """What a choice with one algorithm takes."""

    label: str
    first: Figure
    """All targets are well."""
    troubled: Figure | None = None
    """One target's breaker is open."""
    second: Figure | None = None
    """Another target, after the first one failed."""


def rows(seconds: float, targets: int = TARGETS) -> Iterator[Row]:
    """A row for each algorithm."""
    for algorithm in ALGORITHMS:
        well, failing = Case(algorithm, targets), Case(algorithm, targets)
        failing.open_a_breaker()
        first, troubled, both = _figures([well.first, failing.first, well.second], seconds)
        yield Row(algorithm, first, troubled, both - first)
    for label, weights in (("equal", (100,)), ("different", range(1, 101))):
        chosen = Random(7).choices(weights, k=targets)
        (figure,) = _figures([NewSlots(chosen).first], seconds)
        yield Row(f"consistent-hashing, {label} weights, a slot's first value", figure)


def _figures(choices: Sequence[_Choose], seconds: float) -> list[Figure]:
    """How fast the machine is changes from one moment to the next: it is measured in each round."""
    *timed, machine = rounds([*map(_many, choices), _add], seconds, 1.0)
    return [
        Figure(
            [each / SINGLE_CHOICES * 1e6 for each in one.rounds],
            [each * ALL_ADDITIONS / ADDITIONS for each in machine.rounds],
        )
        for one in timed
    ]


def _add() -> None:
    exec(_ADDING, {})


def _many(choose: _Choose) -> _Choose:
    def run() -> None:
        for _ in range(SINGLE_CHOICES):
            choose()

    return run


class NewSlots:
    """Consistent hashing of values of which hardly any two have the same slot."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._everybody = tuple(range(len(weights)))
        self._weights = weights
        self._seeds = seeds([f"target {index}" for index in self._everybody])
        self._begin()

    def _begin(self) -> None:
        in_turn = round_robin(self._everybody, self._weights)
        self._numbers = count()
        self._choice = ConsistentHashing(
            self._everybody, self._weights, self._seeds, MOST_SLOTS, in_turn
        )

    def first(self) -> int:
        """A value's choice."""
        number = next(self._numbers)
        if number >= SINGLE_CHOICES:
            self._begin()
        return self._choice.pick(self._everybody, f"request {number}", 0.0)


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
