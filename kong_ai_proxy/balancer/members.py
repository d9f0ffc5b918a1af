"""The targets that one choice is among, and how their figures are picked out of all targets'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Protocol


class Choice(Protocol):
    """One algorithm for one group of targets."""

    def pick(self, pool: Sequence[int], key: str, now: float) -> int:
        """The target to ask, one of `pool`, which is not empty.

        `pool`: the group's own `Members.indices`, or those of them that are left, in the same
        order. `key`: what consistent-hashing hashes. `now`: time.monotonic() seconds.
        """
        ...


class Members:
    """Some targets of a configuration by their indexes, at least two, in rising order."""

    __slots__ = ("_gather", "indices")

    def __init__(self, indices: tuple[int, ...]) -> None:
        self.indices = indices
        self._gather: Callable[[Sequence[float]], tuple[float, ...]] = itemgetter(*indices)

    def of(self, values: Sequence[float], pool: Sequence[int]) -> Sequence[float]:
        """The entries of `values` (one for each target of the configuration) that are `pool`'s."""
        if pool is self.indices:
            return values if len(values) == len(pool) else self._gather(values)
        return [values[index] for index in pool]


def least(values: Sequence[float], after: int) -> int:
    """The position of the least value: of equal ones the first at `after` or behind, else the
    first of all. So equal ones have their turns when `after` is behind the last one chosen."""
    low = min(values)
    try:
        return values.index(low, after)
    except ValueError:
        return values.index(low)
