"""round-robin: smooth and weighted.

Each target has a credit. A turn raises every credit by the target's weight; the target with the
most credit is chosen and pays the sum of the weights. Credits are back at zero after as many turns
as that sum (divided by the weights' common divisor), so each such window has every target exactly
as often as its weight says, spread out evenly. Where all weights are equal, this is one target
after the other.

This is the method that nginx describes for its upstreams:
https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import gcd, inf
from operator import add

from typing_extensions import override

from kong_ai_proxy.balancer.members import Choice


def round_robin(indices: tuple[int, ...], weights: Sequence[int]) -> Choice:
    """Turns of one group of targets. `weights`: of every target of the configuration."""
    own = [weights[index] for index in indices]
    return _OneByOne() if len(set(own)) == 1 else _Smooth(indices, own)


class _OneByOne(Choice):
    """Turns of equal targets, whoever is left of them."""

    def __init__(self) -> None:
        self._last = -1

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        place = bisect_right(pool, self._last)
        self._last = pool[place] if place < len(pool) else pool[0]
        return self._last


class _Smooth(Choice):
    """Turns of targets whose weights differ.

    A turn among some of them moves only their credits: a target that was left out comes back with
    the credit it had, and has nothing to catch up. Who is chosen pays the same in every turn, and
    the raise makes up for it, in proportion to the weights: so turns among all and turns among some
    may alternate, and shares are still those of the weights.
    """

    def __init__(self, indices: tuple[int, ...], weights: Sequence[int]) -> None:
        """`weights`: those of `indices`."""
        divisor = gcd(*weights)
        self._indices = indices
        self._weights = [weight // divisor for weight in weights]
        self._sum = sum(self._weights)
        self._credits: list[float] = [0] * len(indices)
        self._pool = indices
        self._raises: list[float] = []
        self._left_out: list[int] = []

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        if pool is not self._indices:
            return self._among(pool)
        credits_ = self._credits = list(map(add, self._credits, self._weights))
        place = credits_.index(max(credits_))
        credits_[place] -= self._sum
        return self._indices[place]

    def _among(self, pool: tuple[int, ...]) -> int:
        if pool is not self._pool:
            self._take(pool)
        credits_ = self._credits = list(map(add, self._credits, self._raises))
        kept = [credits_[place] for place in self._left_out]
        for place in self._left_out:
            credits_[place] = -inf
        chosen = credits_.index(max(credits_))
        credits_[chosen] -= self._sum
        for place, credit in zip(self._left_out, kept, strict=True):
            credits_[place] = credit
        return self._indices[chosen]

    def _take(self, pool: tuple[int, ...]) -> None:
        taking = set(pool)
        self._pool = pool
        self._left_out = [p for p, index in enumerate(self._indices) if index not in taking]
        raises: list[float] = [*self._weights]
        for place in self._left_out:
            raises[place] = 0
        part = self._sum / sum(raises)
        self._raises = [weight * part for weight in raises]
