"""Which targets may be asked: the circuit breaker, and targets that asked for a rest.

A breaker opens with the `max_fails`th failure, in a row or not, and its target is left out. From
`fail_timeout` after the last failure on, one request may probe it: a success closes the breaker and
forgets the failures, a failure leaves it open for as long again. A success forgets failures only
where the last one is that long ago.
"""

from __future__ import annotations

from collections.abc import Sequence

from kong_ai_proxy.balancer.memory import Memory


class Breaker:
    """The breakers of one configuration's targets, by index. `now` is the shared clock's."""

    def __init__(
        self, memory: Memory, records: Sequence[int], max_fails: int, fail_timeout: float
    ) -> None:
        """`max_fails` 0: none ever opens. `fail_timeout` in seconds."""
        self._memory = memory
        self._records = records
        self._max_fails = max_fails
        self._fail_timeout = fail_timeout
        self._seen = -1
        self._doubtful: frozenset[int] = frozenset()

    @property
    def doubtful(self) -> frozenset[int]:
        """The targets whose breaker is open or that rest. A rest that is over counts until
        `is_resting` was asked."""
        memory = self._memory
        if memory.changes != self._seen:
            self._seen = memory.changes
            self._doubtful = frozenset(
                index
                for index, record in enumerate(self._records)
                if self._is_open(record) or memory.rest_until[record]
            )
        return self._doubtful

    def is_available(self, index: int, now: float) -> bool:
        """Whether the breaker is closed or may be probed."""
        record = self._records[index]
        return not self._is_open(record) or self._may_probe(record, now)

    def claim(self, index: int, now: float) -> bool:
        """Whether the target may be asked now. Of an open breaker this takes the probe, which then
        is nobody else's for `fail_timeout`, or until it failed."""
        record = self._records[index]
        if not self._is_open(record):
            return True
        if not self._may_probe(record, now):
            return False
        with self._memory.lock:
            if self._is_open(record):
                if not self._may_probe(record, now):
                    return False
                self._memory.probe_until[record] = now + self._fail_timeout
        return True

    def release(self, index: int, claimed: float) -> None:
        """Give back the probe that a `claim` took at this time, if it did."""
        memory, record = self._memory, self._records[index]
        mine = claimed + self._fail_timeout
        if memory.probe_until[record] != mine:
            return
        with memory.lock:
            if memory.probe_until[record] == mine:
                memory.probe_until[record] = 0.0

    def failed(self, index: int, now: float) -> None:
        """Count a failure."""
        if not self._max_fails:
            return
        memory, record = self._memory, self._records[index]
        with memory.lock:
            memory.fails[record] += 1
            memory.last_failure[record] = max(now, memory.last_failure[record])
            memory.probe_until[record] = 0.0
            if memory.fails[record] == self._max_fails:
                memory.changed()

    def succeeded(self, index: int, now: float) -> None:
        """Forget the failures if the last one is long enough ago."""
        memory, record = self._memory, self._records[index]
        if not memory.fails[record] or not self._is_past(record, now):
            return
        with memory.lock:
            if memory.fails[record] and self._is_past(record, now):
                memory.fails[record] = memory.told_fails[record] = 0
                memory.resets[record] += 1
                memory.probe_until[record] = 0.0
                memory.changed()

    def rest(self, index: int, until: float) -> None:
        """Have a target rest at least until then."""
        memory, record = self._memory, self._records[index]
        with memory.lock:
            memory.rest_until[record] = max(until, memory.rest_until[record])
            memory.changed()

    def is_resting(self, index: int, now: float) -> bool:
        """Whether the target asked not to be asked yet."""
        memory, record = self._memory, self._records[index]
        until = memory.rest_until[record]
        if not until:
            return False
        if now < until:
            return True
        with memory.lock:
            if memory.rest_until[record] <= now:
                memory.rest_until[record] = 0.0
                memory.changed()
        return False

    def _is_open(self, record: int) -> bool:
        return 0 < self._max_fails <= self._memory.fails[record]

    def _may_probe(self, record: int, now: float) -> bool:
        return self._is_past(record, now) and now >= self._memory.probe_until[record]

    def _is_past(self, record: int, now: float) -> bool:
        return now >= self._memory.last_failure[record] + self._fail_timeout
