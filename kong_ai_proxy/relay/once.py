"""Numbers that are honoured once in a whole generation, however many processes it has.

The supervisor makes one anonymous piece of shared memory and its workers inherit it. It holds the
generation's secret, which so is on no command line and in no environment, and one slot for each
worker:

    secret (32 bytes) ... | slot 0: mark, open, times ... ring | slot 1: ... |

A number is a slot and a sequence in it. The mark is the sequence that comes next; as it outlives
the worker, whoever is started again in the slot goes on where the one before ended. The ring has
one byte for each of the last WINDOW sequences: the lap in which that place was claimed. Pages that
were never touched take no memory.

A slot is open while tickets with its numbers may still come to the relay.

A claim holds a POSIX record lock on its byte while it looks and writes. The kernel gives the lock
back when its process dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from kong_ai_proxy.relay.shared import anonymous

MAX_SLOTS: Final = 64
WINDOW: Final = 1 << 22
"""How many numbers of a slot are open at a time; older ones are refused. At 1,000 a second in one
worker this is longer than a ticket lives."""

SECRET_BYTES: Final = 32

_PAGE: Final = 4096
_HEAD: Final = 2 * _PAGE  # of a slot: its mark and its times
_SLOT_BITS: Final = 6
_LAPS: Final = 255  # values of a byte of the ring but 0, which says that it was never claimed
_OPEN_AT: Final = 1  # in words after the mark
_TIMES_AT: Final = 2
_TIMES: Final = 400
_TIME_SECONDS: Final = 10.0  # times are this far apart, so the table covers more than an hour


class ClaimError(Exception):
    """The number was claimed before, is being claimed at this moment, or is not open. The text
    says which."""


class Once:
    """The shared memory of one generation.

    A process must use it from one thread only, because record locks do not keep the threads of one
    process apart. `now` has to be the same clock in every process.
    """

    def __init__(self, descriptor: int, now: Callable[[], float] = time.monotonic) -> None:
        """Map the memory at `descriptor`, which `create` made here or in the process before, and
        own the descriptor."""
        self._descriptor = descriptor
        self._now = now
        size = os.fstat(descriptor).st_size
        self._slots = (size - _PAGE) // (_HEAD + WINDOW)
        self._memory = mmap.mmap(descriptor, size)
        self._words = memoryview(self._memory).cast("Q")  # whole words, so that none is half read

    @classmethod
    def create(cls, slots: int, now: Callable[[], float] = time.monotonic) -> Once:
        """New memory with a new secret, for numbers of `slots` workers (1 to MAX_SLOTS)."""
        if not 1 <= slots <= MAX_SLOTS:
            raise ValueError(f"expected 1 to {MAX_SLOTS} slots, got {slots}")
        length = _PAGE + slots * (_HEAD + WINDOW)
        descriptor = anonymous("kong-ai-proxy tickets", length)
        os.pwrite(descriptor, os.urandom(SECRET_BYTES), 0)
        return cls(descriptor, now)

    def fileno(self) -> int:
        """The descriptor to hand down."""
        return self._descriptor

    @property
    def secret(self) -> bytes:
        """The generation's secret, 32 bytes."""
        return self._memory[:SECRET_BYTES]

    def numbers(self, slot: int) -> Numbers:
        """The numbers of a slot. One process at a time may take them."""
        if not 0 <= slot < self._slots:
            raise ValueError(f"expected a slot from 0 to {self._slots - 1}, got {slot}")
        return Numbers(self, slot)

    def claim(self, number: int) -> None:
        """Claim a number. Returns to one process only, once; ClaimError for everybody else.

        Whoever comes while another process claims the number is refused, not kept waiting.
        """
        slot, sequence = number & (MAX_SLOTS - 1), number >> _SLOT_BITS
        if slot >= self._slots or sequence < 0:
            raise ClaimError("a number that was never issued")
        byte = _ring(slot) + sequence % WINDOW
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            raise ClaimError("a number that is being claimed at this moment") from None
        try:
            self._claim_locked(slot, sequence, byte)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

    def _claim_locked(self, slot: int, sequence: int, byte: int) -> None:
        mark = self._words[_mark(slot)]
        if sequence >= mark:
            raise ClaimError("a number that was never issued")
        if sequence < mark - WINDOW:
            raise ClaimError(f"a number older than the last {WINDOW}")
        lap = _lap(sequence)
        if self._memory[byte] == lap:
            raise ClaimError("a number that was claimed before")
        self._memory[byte] = lap

    def take(self, slot: int) -> int:
        """The next number of a slot."""
        words, at = self._words, _mark(slot)
        sequence = words[at]
        tick = int(self._now() / _TIME_SECONDS)
        time_at = at + _TIMES_AT + 2 * (tick % _TIMES)
        if words[time_at] != tick:
            words[time_at + 1] = sequence
            words[time_at] = tick
        words[at] = sequence + 1
        return sequence << _SLOT_BITS | slot

    def unclaimed(self, slot: int, seconds: float) -> int:
        """How many numbers of a slot were taken within the last `seconds` (and up to ten more;
        at most an hour) and not claimed."""
        mark = self._words[_mark(slot)]
        first = max(self._taken_since(slot, seconds), mark - WINDOW)
        return sum(
            size - self._memory[start : start + size].count(lap)
            for start, size, lap in _pieces(slot, first, mark)
        )

    def _taken_since(self, slot: int, seconds: float) -> int:
        at = _mark(slot)
        times = self._words[at + _TIMES_AT : at + _TIMES_AT + 2 * _TIMES]
        now = self._now()
        oldest = max(int((now - seconds) / _TIME_SECONDS), int(now / _TIME_SECONDS) - _TIMES + 1)
        recent = (
            times[i + 1]
            for i in range(0, 2 * _TIMES, 2)
            if times[i] >= oldest and (times[i] or times[i + 1])
        )
        return min(recent, default=self._words[at])

    def set_open(self, slot: int, is_open: bool) -> None:
        """Say whether tickets with numbers of a slot may still come."""
        self._words[_mark(slot) + _OPEN_AT] = is_open

    def any_open(self) -> bool:
        """Whether any slot is open."""
        return any(self._words[_mark(slot) + _OPEN_AT] for slot in range(self._slots))

    def close(self) -> None:
        """Unmap the memory and close the descriptor."""
        self._words.release()
        self._memory.close()
        os.close(self._descriptor)


class Numbers:
    """Numbers for one worker's tickets."""

    def __init__(self, once: Once, slot: int) -> None:
        self._once = once
        self._slot = slot

    def take(self) -> int:
        """The next number, which nobody got before and nobody will get again."""
        return self._once.take(self._slot)

    def unclaimed(self, seconds: float) -> int:
        """How many were taken within the last `seconds` (and up to ten more) and not claimed,
        those that a worker before in the slot took among them."""
        return self._once.unclaimed(self._slot, seconds)


def _start(slot: int) -> int:
    return _PAGE + slot * (_HEAD + WINDOW)


def _mark(slot: int) -> int:
    """In words of eight bytes."""
    return _start(slot) // 8


def _ring(slot: int) -> int:
    return _start(slot) + _HEAD


def _lap(sequence: int) -> int:
    return sequence // WINDOW % _LAPS + 1


def _pieces(slot: int, first: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Where the sequences from `first` to before `end` lie: start, size, the byte of their lap."""
    while first < end:
        size = min(end - first, WINDOW - first % WINDOW)
        yield _ring(slot) + first % WINDOW, size, bytes([_lap(first)])
        first += size
