"""lowest-latency: the quickest target gets most, the others a little.

Latencies are peak EWMAs: a slow answer counts at once, and is forgotten slowly. The quickest
target gets 90 to 99 % of the requests and every other one 0.1 to 5 %, in proportion to how near it
is, so that each is measured again and again. Among more than a hundred others 0.1 % each would be
more than the 10 % there are for them all: they share these.

A target without a latency yet comes first, but only while no request is under way to it, so that
many requests at once do not all go where nobody knows how long they take; while no target has one,
it is the one with the fewest requests under way, in turn. A target that still has none after
LEARNING requests (its answers may say nothing of tokens) counts as the slowest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from typing_extensions import override

from kong_ai_proxy.balancer.least_connections import InFlight
from kong_ai_proxy.balancer.members import Choice, Members, least

BEST = 0.90
"""Least share of the quickest target."""
MOST, LEAST = 0.05, 0.001
"""Shares of each other target."""
ALL_OTHERS = 0.01
"""Least share of all others together."""
LEARNING = 8
"""Requests of one worker."""


class Measured(InFlight, Protocol):
    """What is read of the targets' states."""

    def latencies(self, now: float) -> Sequence[float]:
        """For each target its latency in seconds; 0.0 = not measured yet."""
        ...


def shares(latencies: Sequence[float]) -> list[float]:
    """The share of each target's requests, in the order of `latencies`, which are all over 0."""
    low = min(latencies)
    best, others = latencies.index(low), len(latencies) - 1
    if not others:
        return [1.0]
    base = min(max(LEAST, ALL_OTHERS / others), (1 - BEST) / others)
    by_nearness = [(MOST - base) * low / latency for latency in latencies]
    by_nearness[best] = 0.0
    scale = min(1.0, (1 - BEST - base * others) / sum(by_nearness))
    found = [base + scale * each for each in by_nearness]
    found[best] = 1 - sum(found) + found[best]
    return found


class LowestLatency(Choice):
    """The choice among one group of targets."""

    def __init__(
        self, indices: tuple[int, ...], states: Measured, random: Callable[[], float]
    ) -> None:
        """`random` gives numbers from 0 up to 1."""
        self.indices = indices
        self._members = Members(indices)
        self._states = states
        self._random = random
        self._learning = dict.fromkeys(indices, LEARNING)
        self._last = -1

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        """`key` makes no difference."""
        latencies = self._members.of(self._states.latencies(now), pool)
        if 0.0 in latencies:
            return self._unmeasured(pool, latencies, now)
        return self._measured(pool, latencies)

    def _measured(self, pool: Sequence[int], latencies: Sequence[float]) -> int:
        number = self._random()
        if number < BEST:  # the exact share of the others matters only beyond
            return pool[latencies.index(min(latencies))]
        return pool[_at(shares(latencies), latencies.index(min(latencies)), number)]

    def _unmeasured(self, pool: tuple[int, ...], latencies: Sequence[float], now: float) -> int:
        under_way = self._members.of(self._states.in_flight(now), pool)
        after = bisect_right(pool, self._last)
        if not any(latencies):
            self._last = pool[least(under_way, after)]
            return self._last
        rows = list(zip(pool, latencies, under_way, strict=True))
        idle = [
            index
            for index, latency, requests in rows
            if not latency and requests < 1 and self._learning[index]
        ]
        if idle:
            self._last = next((index for index in idle if index > self._last), idle[0])
            self._learning[self._last] -= 1
            return self._last
        slowest = max(latencies)
        known = [row for row in rows if row[1] or not self._learning[row[0]]]
        return self._measured([row[0] for row in known], [row[1] or slowest for row in known])


def _at(shares: Sequence[float], best: int, number: float) -> int:
    """The position whose part of 0..1 holds `number`; the best one's comes first."""
    end = shares[best]
    if number < end:
        return best
    for position, share in enumerate(shares):
        if position != best:
            end += share
            if number < end:
                return position
    return best  # what rounding leaves
