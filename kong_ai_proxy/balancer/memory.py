"""How the state of targets lies in the memory that the processes of a node share.

It is words of eight bytes, so that none is ever half read: a short head, then one column after the
other. A target's record is the same place in every column. The columns of a worker are written by
that worker alone and summed by whoever reads, so nothing is lost and nothing is locked. The other
columns are shared: what is counted in them exactly is counted under the lock. Pages that were never
touched take no memory.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, TypeAlias

RECORDS: Final = 16384
"""Targets that the memory of a node has room for."""

Integers: TypeAlias = "memoryview[int]"
Numbers: TypeAlias = "memoryview[float]"
Lock = AbstractContextManager[object]
"""Keeps the other processes out. Not reentrant."""

_WORD: Final = 8
_HEAD: Final = 8  # words
_SHARED: Final = 19  # columns
_OWN: Final = 6  # columns of each worker
_HIGH, _TURN, _CHANGES = range(3)  # in the head


class Usage(NamedTuple):
    """Columns of what requests used."""

    requests: Numbers
    prompt: Numbers
    completion: Numbers
    cost: Numbers


class Worker(NamedTuple):
    """The columns of one worker."""

    in_flight: Integers
    held: Integers
    """How many configurations use the record."""
    usage: Usage


def size(workers: int, records: int = RECORDS) -> int:
    """In bytes."""
    return _WORD * (_HEAD + records * (_SHARED + workers * _OWN))


class Memory:
    """The columns, in `size(workers)` bytes that were all zero at first. Times are those of one
    clock, in seconds."""

    def __init__(self, content: memoryview, workers: int, lock: Lock) -> None:
        self.lock = lock
        self._integers: Integers = content.cast("B").cast("q")
        self._numbers: Numbers = content.cast("B").cast("d")
        self.records = (len(self._integers) - _HEAD) // (_SHARED + workers * _OWN)
        self._starts = itertools.count(_HEAD, self.records)
        self.keys = self._integer_column()
        """Whose the record is; 0: nobody's."""
        self.turns = self._integer_column()
        """When a configuration last began to use it: the lower, the longer ago."""
        self.fails = self._integer_column()
        self.told_fails = self._integer_column()
        """How many of them the other nodes know."""
        self.resets = self._integer_column()
        """How often the fails were forgotten, a success having come."""
        self.told_resets = self._integer_column()
        self.last_failure = self._number_column()
        self.probe_until = self._number_column()
        """How long nobody else may probe."""
        self.rest_until = self._number_column()
        """0.0: it does not rest."""
        self.latency = self._number_column()
        """Seconds; 0.0: not measured yet."""
        self.latency_at = self._number_column()
        self.told = self._usage_columns()
        """What the other nodes know of this node's usage."""
        self.base = self._usage_columns()
        """What the other nodes used, as far as this one knows."""
        self.workers = [self._worker_columns() for _ in range(workers)]

    def _integer_column(self) -> Integers:
        start = next(self._starts)
        return self._integers[start : start + self.records]

    def _number_column(self) -> Numbers:
        start = next(self._starts)
        return self._numbers[start : start + self.records]

    def _usage_columns(self) -> Usage:
        return Usage(*(self._number_column() for _ in Usage._fields))

    def _worker_columns(self) -> Worker:
        return Worker(self._integer_column(), self._integer_column(), self._usage_columns())

    @property
    def changes(self) -> int:
        """Changes whenever a target comes into trouble or out of it."""
        return self._integers[_CHANGES]

    def changed(self) -> None:
        """Have everybody look again which targets are in trouble. Under the lock only."""
        self._integers[_CHANGES] += 1

    def used_keys(self) -> list[int]:
        """The keys of the records that were ever used, from the first on."""
        return self.keys[: self._integers[_HIGH]].tolist()

    def forget_worker(self, slot: int) -> None:
        """Have nothing under way in a worker that is not there any more."""
        own = self.workers[slot]
        for record in range(self._integers[_HIGH]):
            if own.held[record] or own.in_flight[record]:
                own.held[record] = own.in_flight[record] = 0

    def find(self, keys: list[int]) -> list[int] | None:
        """The records of these keys, all different, made where there are none; None where there is
        no room. Under the lock only, and they have to be held before it is given back."""
        known = {key: record for record, key in enumerate(self.used_keys()) if key}
        missing = [key for key in keys if key not in known]
        free = self._free(len(missing), {known[key] for key in keys if key in known})
        if len(free) < len(missing):
            return None
        for key, record in zip(missing, free, strict=False):
            self._give(record, key)
            known[key] = record
        self._integers[_TURN] += 1
        for key in keys:
            self.turns[known[key]] = self._integers[_TURN]
        return [known[key] for key in keys]

    def _free(self, wanted: int, taken: set[int]) -> list[int]:
        """Records for new keys: those that nobody ever had, then those that nobody uses now, the
        longest unused first."""
        high = self._integers[_HIGH]
        if high + wanted <= self.records:
            return list(range(high, high + wanted))
        unused = [r for r in range(high) if r not in taken and not self.is_held(r)]
        unused.sort(key=self.turns.__getitem__)
        return [*range(high, self.records), *unused][:wanted]

    def is_held(self, record: int) -> bool:
        """Whether any configuration uses it."""
        return any(own.held[record] for own in self.workers)

    def _give(self, record: int, key: int) -> None:
        for start in range(_HEAD, len(self._integers), self.records):
            self._integers[start + record] = 0
        self.keys[record] = key
        self._integers[_HIGH] = max(self._integers[_HIGH], record + 1)
