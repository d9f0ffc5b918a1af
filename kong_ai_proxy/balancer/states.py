"""What is known of targets while they serve: requests under way, usage, latency, health.

A node's workers share it, by the id of the plugin and by what a target is. So a configuration that
is loaded again keeps its state, and so does a target when another one of its plugin changes.

Everybody passes the time in: seconds of a clock that is the same in all processes of the node.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from kong_ai_proxy.balancer import identity
from kong_ai_proxy.balancer.breaker import Breaker
from kong_ai_proxy.balancer.memory import Integers, Memory, Numbers, Usage, size
from kong_ai_proxy.config import AiProxyAdvanced

Strategy = Literal["total-tokens", "prompt-tokens", "completion-tokens", "cost"]
"""Usage that can be compared."""

SNAPSHOT_SECONDS: Final = 0.01
"""How old what the other workers have under way may be."""

USAGE_SECONDS: Final = 0.25
"""How old what others used may be, which is little against all that was ever used."""

LATENCY_DECAY_SECONDS: Final = 10.0
"""How long ago a sample is that a new one outweighs by 63 %."""

_PRIVATE_RECORDS: Final = 1024

_log = logging.getLogger(__name__)


class Table:
    """The states of all configurations, as one worker sees them."""

    def __init__(self, memory: Memory, slot: int) -> None:
        """`slot` is the worker's: its columns are nobody else's. What a worker before in it had
        under way is forgotten."""
        self._memory = memory
        self.slot = slot
        self._left: collections.deque[list[int]] = collections.deque()
        self._is_full = False
        memory.forget_worker(slot)

    @classmethod
    def private(cls, records: int = _PRIVATE_RECORDS) -> Table:
        """A table of this process alone."""
        content = memoryview(bytearray(size(1, records)))
        return cls(Memory(content, 1, contextlib.nullcontext()), 0)

    def states(self, plugin_id: str, config: AiProxyAdvanced) -> States:
        """The states of a configuration's targets, those of one before that had the same."""
        keys = identity.keys(plugin_id, config.targets)
        memory, own = self._memory, self._memory.workers[self.slot]
        with memory.lock:
            while self._left:
                for record in self._left.popleft():
                    own.held[record] -= 1
            records = memory.find(keys)
            for record in records or ():
                own.held[record] += 1
        if records is None:
            self._warn()
            return Table.private(len(keys)).states(plugin_id, config)
        states = States(memory, self.slot, records, config)
        # Not at once: whoever is collecting garbage may be in the middle of the lines above.
        weakref.finalize(states, self._left.append, records).atexit = False
        return states

    def _warn(self) -> None:
        if not self._is_full:
            self._is_full = True
            _log.warning(
                "more than %d targets are in use: this worker balances the rest without knowing of "
                "the other workers",
                self._memory.records,
            )


class States:
    """The states of one configuration's targets, by their index in `config.targets`.

    The lists that `in_flight`, `usage` and `requests` return change with the time: read them, and
    neither keep nor change them.
    """

    def __init__(
        self, memory: Memory, slot: int, records: list[int], config: AiProxyAdvanced
    ) -> None:
        self._own = memory.workers[slot]
        self._records = records
        self._read = _reader(records)
        balancer = config.balancer
        self._breaker = Breaker(memory, records, balancer.max_fails, balancer.fail_timeout / 1000)
        self._latency = memory.latency
        self._latency_at = memory.latency_at
        self._in_flight = _Sums(
            records, [worker.in_flight for worker in memory.workers], SNAPSHOT_SECONDS
        )
        everybody: list[Usage] = [memory.base, *(worker.usage for worker in memory.workers)]
        prompt, completion = [u.prompt for u in everybody], [u.completion for u in everybody]
        self._requests = _Sums(records, [u.requests for u in everybody], USAGE_SECONDS)
        self._usage: dict[Strategy, _Sums] = {
            "total-tokens": _Sums(records, [*prompt, *completion], USAGE_SECONDS),
            "prompt-tokens": _Sums(records, prompt, USAGE_SECONDS),
            "completion-tokens": _Sums(records, completion, USAGE_SECONDS),
            "cost": _Sums(records, [u.cost for u in everybody], USAGE_SECONDS),
        }

    def begin(self, index: int) -> None:
        """A request or a WebSocket is under way at this target. Whoever says so says `end`."""
        self._own.in_flight[self._records[index]] += 1
        self._in_flight.values[index] += 1

    def end(self, index: int) -> None:
        """It is over."""
        self._own.in_flight[self._records[index]] -= 1
        self._in_flight.values[index] -= 1

    def used(self, index: int, prompt: int, completion: int, cost: float) -> None:
        """What a request used, in tokens and in the currency of the configured prices."""
        record, own = self._records[index], self._own.usage
        own.requests[record] += 1
        own.prompt[record] += prompt
        own.completion[record] += completion
        own.cost[record] += cost
        self._requests.values[index] += 1
        usage = self._usage
        usage["total-tokens"].values[index] += prompt + completion
        usage["prompt-tokens"].values[index] += prompt
        usage["completion-tokens"].values[index] += completion
        usage["cost"].values[index] += cost

    def took(self, index: int, seconds: float, now: float) -> None:
        """A sample of the latency. The estimate rises with it at once and falls slowly."""
        record = self._records[index]
        before = self._latency[record]
        age = max(0.0, now - self._latency_at[record])
        weight = math.exp(-age / LATENCY_DECAY_SECONDS)
        self._latency[record] = max(seconds, before * weight + seconds * (1 - weight))
        self._latency_at[record] = now

    def failed(self, index: int, now: float) -> None:
        """Count a failure towards `max_fails`."""
        self._breaker.failed(index, now)

    def succeeded(self, index: int, now: float) -> None:
        """The target answered well, which may close its breaker."""
        self._breaker.succeeded(index, now)

    def rest(self, index: int, until: float) -> None:
        """The target asked not to be asked before then."""
        self._breaker.rest(index, until)

    @property
    def doubtful(self) -> frozenset[int]:
        """The targets whose breaker is open or that rest; all others may be asked."""
        return self._breaker.doubtful

    def is_available(self, index: int, now: float) -> bool:
        """Whether the target's breaker is closed or may be probed."""
        return self._breaker.is_available(index, now)

    def claim(self, index: int, now: float) -> bool:
        """Whether the target, which was chosen, may be asked. Takes the probe of an open
        breaker."""
        return self._breaker.claim(index, now)

    def release(self, index: int, claimed: float) -> None:
        """The target was not asked after all, or nobody has seen how it fared: the probe that a
        `claim` took at that time is another request's."""
        self._breaker.release(index, claimed)

    def is_resting(self, index: int, now: float) -> bool:
        """Whether the target asked not to be asked yet."""
        return self._breaker.is_resting(index, now)

    def in_flight(self, now: float) -> Sequence[float]:
        """What is under way on the node."""
        return self._in_flight.at(now)

    def usage(self, strategy: Strategy, now: float) -> Sequence[float]:
        """What was used so far, by other nodes too where they share their states."""
        return self._usage[strategy].at(now)

    def requests(self, now: float) -> Sequence[float]:
        """How many requests used it."""
        return self._requests.at(now)

    def latencies(self, now: float) -> Sequence[float]:
        """The estimates of the latency (peak EWMA), in seconds; 0.0 where none was measured."""
        return self._read(self._latency)


class _Sums:
    """Sums over columns, record by record, of which the part of this worker is always current."""

    def __init__(
        self, records: list[int], columns: Sequence[Integers | Numbers], seconds: float
    ) -> None:
        self._read = _reader(records)
        self._columns = columns
        self._seconds = seconds
        self._taken = -math.inf
        self.values: list[float] = [0] * len(records)

    def at(self, now: float) -> list[float]:
        """The sums, as of at most `seconds` ago."""
        if not 0 <= now - self._taken < self._seconds:
            self._taken = now
            self.values = list(map(sum, zip(*map(self._read, self._columns), strict=True)))
        return self.values


def _reader(records: list[int]) -> Callable[[memoryview[Any]], Sequence[Any]]:
    """What takes these records out of a column."""
    if len(records) == 1:
        return lambda column: (column[records[0]],)
    return operator.itemgetter(*records)
