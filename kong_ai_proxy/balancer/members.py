"""The targets that one choice is among, and how their figures are picked out of all targets'."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from operator import itemgetter

Gather = Callable[[Sequence[float]], Sequence[float]]


class Choice(abc.ABC):
    """One algorithm for one group of targets."""

    @abc.abstractmethod
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        """The target to ask, one of `pool`, which is not empty.

        `pool`: the group's own indexes, or those of them that are left, in rising order. It is
        quicker when the same tuple comes again. `key`: what consistent-hashing hashes. `now`:
        time.monotonic() seconds.
        """

    def failed(self, index: int) -> None:  # noqa: B027 - most do not mind
        """A target that was picked failed, and the request goes on to another one."""


class Members:
    """Picks what belongs to some targets out of lists that have an entry for each target of the
    configuration."""

    __slots__ = ("_gather", "_gather_all", "_indices", "_pool")

    def __init__(self, indices: tuple[int, ...]) -> None:
        self._indices = self._pool = indices
        self._gather = self._gather_all = _gather(indices)

    def of(self, values: Sequence[float], pool: tuple[int, ...]) -> Sequence[float]:
        """The entries of `values` that are `pool`'s, which is all targets of the group or some."""
        if len(pool) == len(values):
            return values
        if pool is self._indices:
            return self._gather_all(values)
        if pool is not self._pool:
            self._pool, self._gather = pool, _gather(pool)
        return self._gather(values)


def _gather(pool: tuple[int, ...]) -> Gather:
    if len(pool) == 1:
        return lambda values: (values[pool[0]],)
    return itemgetter(*pool)


def least(values: Sequence[float], after: int) -> int:
    """The position of the least value: of equal ones the first at `after` or behind, else the
    first of all. So equal ones have their turns when `after` is behind the last one chosen."""
    low = min(values)
    try:
        return values.index(low, after)
    except ValueError:
        return values.index(low)
