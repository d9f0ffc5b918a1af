"""consistent-hashing: the same value goes to the same target.

Weighted rendezvous hashing: a value's hash is one of `slots` slots. In each slot every target has
a random number u between 0 and 1, made of the target's identity and the slot alone, and the
target with the greatest u ** (1 / weight) has the slot: each one with a probability in proportion
to its weight. So

- a target that is added takes its share of the slots, one that is removed leaves its own to the
  others, and no slot moves between two targets that stay; a changed weight moves slots only from
  or to that target;
- when a target is out, its values go to the next best of each slot: to all others, by weight;
- what an alias or an ACL leaves of the targets agrees with the whole: whoever has the slot and is
  among them keeps it;
- every worker and node finds the same.

There is no ring of points to build. A slot's target is found when it is first asked for, and
remembered. With fewer slots than about a hundred a target, shares are coarse.

Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); the weights as in
Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from itertools import repeat
from operator import mod, mul

from typing_extensions import override

from kong_ai_proxy.balancer.members import Choice

_NOBODY = -1
_ONE = 1 << 53
"""Fractions of 53 bits and factors of 26: their products are uneven enough in the bits that
`% 1.0` leaves, and the arithmetic is the same on every machine."""
_FACTORS = 1 << 26


def seeds(identities: Sequence[str]) -> tuple[float, ...]:
    """For each target the fraction that its numbers are made of."""
    return tuple((_hash(each) % _ONE | 1) / _ONE for each in identities)


class ConsistentHashing(Choice):
    """The slots of one group of targets; a request without a value goes to `otherwise`."""

    def __init__(
        self,
        indices: tuple[int, ...],
        weights: Sequence[int],
        seeds: Sequence[float],
        slots: int,
        otherwise: Choice,
    ) -> None:
        """`weights`, `seeds`: of every target of the configuration."""
        self.indices = indices
        self._exponents = [1 / weight for weight in weights]
        self._seeds = seeds
        self._own = [seeds[index] for index in indices]
        self._are_equal = len({weights[index] for index in indices}) == 1
        self._owners = array("i", [_NOBODY]) * slots
        self._otherwise = otherwise

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        if not key:
            return self._otherwise.pick(pool, key, now)
        slot = _hash(key) % len(self._owners)
        owner = self._owners[slot]
        if owner == _NOBODY:
            owner = self._owners[slot] = self._best(slot, self.indices, self._own)
        if pool is self.indices or owner in pool:
            return owner
        return self._best(slot, pool, [self._seeds[index] for index in pool])

    def _best(self, slot: int, pool: Sequence[int], seeds: Sequence[float]) -> int:
        factor = float(_hash(str(slot)) % _FACTORS | 1)
        numbers = map(mod, map(mul, seeds, repeat(factor)), repeat(1.0))
        if not self._are_equal:  # equal weights would change nothing
            numbers = map(pow, numbers, [self._exponents[index] for index in pool])
        found = list(numbers)
        return pool[found.index(max(found))]


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
