"""least-connections: the most room, counting the request that is to be placed.

The target with the least (requests under way + 1) / weight is asked; equal ones in turn. Requests
under way are those of all workers of the node. A target that fails at once has none: `max_fails`
keeps it from being asked first by every request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import add, mul
from typing import Protocol

from typing_extensions import override

from kong_ai_proxy.balancer.members import Choice, Members, least


class InFlight(Protocol):
    """What is read of the targets' states."""

    def in_flight(self, now: float) -> Sequence[float]:
        """For each target how many requests are under way."""
        ...


class LeastConnections(Choice):
    """The choice among one group of targets."""

    def __init__(
        self, indices: tuple[int, ...], weights: Sequence[int], states: InFlight, ahead: int = 0
    ) -> None:
        """`weights`: of every target of the configuration. `ahead`: how many turns have passed."""
        self.indices = indices
        self._members = Members(indices)
        self._inverse = [1 / weight for weight in weights]
        self._are_equal = len({weights[index] for index in indices}) == 1
        self._states = states
        self._last = indices[ahead % len(indices) - 1]

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        """`key` makes no difference."""
        under_way = self._members.of(self._states.in_flight(now), pool)
        if not self._are_equal:
            inverse = self._members.of(self._inverse, pool)
            under_way = list(map(add, map(mul, under_way, inverse), inverse))
        self._last = pool[least(under_way, bisect_right(pool, self._last))]
        return self._last
