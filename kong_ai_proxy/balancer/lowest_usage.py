"""lowest-usage: the target that has used least, by tokens or cost.

Usage is known when an answer is over, so requests under way count too: each as much as a request
to that target has used on average, or to any target where it has had none. Equal ones have their
turns by weight.

A target that is new, or was out for long, has used much less than the others. By the bare rule
every request would go to it until it has caught up, which may take days and more than it can
carry. Here it is counted as if it had used as much as the others, but for CATCH_UP requests of
average size: so many more than its share it gets, then the usage of all grows alike. What is
forgiven stays forgiven. A target that is ahead of the others, by one huge request, is not asked
until they have used as much. A failure uses nothing, and counts as much as an answer: a target
that always fails would else be asked first by every request.

What is compared with is the level: the most that a chosen target had used when it was chosen. For
the first choice in a worker it is the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import add, mul, sub
from typing import Protocol

from typing_extensions import override

from kong_ai_proxy.balancer.least_connections import InFlight
from kong_ai_proxy.balancer.members import Choice, Members
from kong_ai_proxy.balancer.states import Strategy

CATCH_UP = 32
"""Requests of average size that a target may be behind: enough that requests of very different
sizes are evened out, few enough that a new target can bear them all at once."""
_MEANS_LAST = 1.0
"""Seconds that averages are good for."""


class Used(InFlight, Protocol):
    """What is read of the targets' states."""

    def usage(self, strategy: Strategy, now: float) -> Sequence[float]:
        """For each target what it has used so far, in tokens or in the prices' unit."""
        ...

    def requests(self, now: float) -> Sequence[float]:
        """For each target how many requests that usage is of."""
        ...


class LowestUsage(Choice):
    """The choice among one group of targets."""

    def __init__(
        self, indices: tuple[int, ...], states: Used, strategy: Strategy, ties: Choice
    ) -> None:
        self.indices = indices
        self._members = Members(indices)
        self._states = states
        self._strategy = strategy
        self._ties = ties
        self._forgiven: list[float] = []
        """For each target of the configuration what it is counted to have used and has not."""
        self._forgives = False
        self._level: float | None = None
        self._means: list[float] = []
        self._mean = 0.0
        self._means_until = 0.0

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        usage = self._states.usage(self._strategy, now)
        if now >= self._means_until:
            self._average(usage, now)
        chosen, used = self._least(usage, pool, key, now)
        if self._level is None:
            of_all = sorted(self._members.of(usage, self.indices))
            self._level = of_all[len(of_all) // 2]
        floor = self._level - CATCH_UP * self._mean
        if used < floor:
            self._forgiven = list(map(max, self._forgiven, map(sub, repeat(floor), usage)))
            self._forgives = True
            chosen, used = self._least(usage, pool, key, now)
        if used > self._level:
            self._level = used
        return chosen

    @override
    def failed(self, index: int) -> None:
        self._forgiven[index] += self._means[index]
        self._forgives = True

    def _least(
        self, usage: Sequence[float], pool: tuple[int, ...], key: str, now: float
    ) -> tuple[int, float]:
        """The target to ask, and what it has used, the forgiven included."""
        of = self._members.of
        used = of(usage, pool)
        if self._forgives:
            used = list(map(add, used, of(self._forgiven, pool)))
        coming = map(mul, of(self._states.in_flight(now), pool), of(self._means, pool))
        loads = list(map(add, used, coming))
        low = min(loads)
        equal = loads.count(low)
        if equal == 1:
            position = loads.index(low)
            return pool[position], used[position]
        if equal < len(pool):
            pool = tuple(index for index, load in zip(pool, loads, strict=True) if load == low)
        chosen = self._ties.pick(pool, key, now)
        return chosen, usage[chosen] + self._forgiven[chosen]

    def _average(self, usage: Sequence[float], now: float) -> None:
        requests = self._states.requests(now)
        self._mean = mean = sum(usage) / (sum(requests) or 1)
        self._means = [
            used / asked if asked and used else mean
            for used, asked in zip(usage, requests, strict=True)
        ]
        self._means_until = now + _MEANS_LAST
        if not self._forgiven:
            self._forgiven = [0.0] * len(usage)
