"""round-robin: smooth and weighted.

Each target has a credit. A turn raises every credit by the target's weight; the target with the
most credit is chosen and pays the sum of the weights. Credits are back at zero after as many turns
as that sum (divided by the weights' common divisor), so each such window has every target exactly
as often as its weight says, spread out evenly.

This is the method that nginx describes for its upstreams:
https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from operator import add

from typing_extensions import override

from kong_ai_proxy.balancer.members import Choice


class RoundRobin(Choice):
    """Turns of one group of targets.

    A turn among some of them moves only their credits, the sum of which stays the same: a target
    that was left out comes back with the credit it had, and has nothing to catch up.
    """

    def __init__(self, indices: tuple[int, ...], weights: Sequence[int]) -> None:
        """`weights`: of every target of the configuration."""
        divisor = gcd(*(weights[index] for index in indices))
        self._indices = indices
        self._weights = {index: weights[index] // divisor for index in indices}
        self._in_order = list(self._weights.values())
        self._sum = sum(self._in_order)
        self._credits = [0] * len(indices)

    @override
    def pick(self, pool: Sequence[int], key: str, now: float) -> int:
        """`key` and `now` make no difference."""
        if pool is not self._indices:
            return self._among(pool)
        credits_ = self._credits = list(map(add, self._credits, self._in_order))
        position = credits_.index(max(credits_))
        credits_[position] -= self._sum
        return self._indices[position]

    def _among(self, pool: Sequence[int]) -> int:
        chosen, paid, taking, credits_ = -1, 0, set(pool), self._credits
        for position, index in enumerate(self._indices):
            if index in taking:
                weight = self._weights[index]
                credits_[position] += weight
                paid += weight
                if chosen < 0 or credits_[position] > credits_[chosen]:
                    chosen = position
        credits_[chosen] -= paid
        return self._indices[chosen]
