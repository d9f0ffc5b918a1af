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
from itertools import repeat
from math import gcd, inf
from operator import add, mul

from typing_extensions import override

from kong_ai_proxy.balancer.members import Choice


class RoundRobin(Choice):
    """Turns of one group of targets.

    A turn among some of them moves only their credits: a target that was left out comes back with
    the credit it had, and has nothing to catch up. Who is chosen pays the same in every turn, and
    the raise makes up for it, in proportion to the weights: so turns among all and turns among some
    may alternate, and shares are still those of the weights.
    """

    def __init__(self, indices: tuple[int, ...], weights: Sequence[int]) -> None:
        """`weights`: of every target of the configuration."""
        divisor = gcd(*(weights[index] for index in indices))
        self._indices = indices
        self._everybody = frozenset(indices)
        self._places = {index: place for place, index in enumerate(indices)}
        self._weights = [weights[index] // divisor for index in indices]
        self._sum = sum(self._weights)
        self._credits: list[float] = [0] * len(indices)

    @override
    def pick(self, pool: Sequence[int], key: str, now: float) -> int:
        """`key` and `now` make no difference."""
        if pool is not self._indices:
            return self._among(pool)
        credits_ = self._credits = list(map(add, self._credits, self._weights))
        place = credits_.index(max(credits_))
        credits_[place] -= self._sum
        return self._indices[place]

    def _among(self, pool: Sequence[int]) -> int:
        left_out = [self._places[index] for index in self._everybody.difference(pool)]
        weights = self._weights.copy()
        for place in left_out:
            weights[place] = 0
        raise_ = self._sum / sum(weights)
        credits_ = self._credits = list(map(add, self._credits, map(mul, weights, repeat(raise_))))
        eligible = credits_.copy()
        for place in left_out:
            eligible[place] = -inf
        place = eligible.index(max(eligible))
        credits_[place] -= self._sum
        return self._indices[place]
