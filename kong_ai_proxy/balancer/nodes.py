"""What nodes tell each other of their targets: usage and failures.

Each node adds what is new to a common total and reads it back. `news` says what is new here, and
`take` notes that it was told, and what the total is then. So the usage that everybody sees is the
total and what was not told yet, and where the total was lost all begin anew alike. A success that
closes a breaker has the common count of failures begin anew too.
"""

from __future__ import annotations

from typing import NamedTuple

from kong_ai_proxy.balancer.memory import Memory, Usage


class Told(NamedTuple):
    """Figures of one kind of usage each: requests, tokens, cost."""

    requests: float
    prompt: float
    completion: float
    cost: float


class News(NamedTuple):
    """What other nodes do not know of a target yet."""

    record: int
    key: int
    usage: Told
    used: Told
    """All that this node ever used, the new part among it."""
    fails: int
    counted: int
    """All failures that count here, the new ones among them."""
    resets: int
    is_reset: bool
    """The failures before the new ones are to be forgotten."""
    last_failure: float

    @property
    def name(self) -> str:
        """The key as 16 hexadecimal digits."""
        return f"{self.key & (1 << 64) - 1:016x}"

    @property
    def is_empty(self) -> bool:
        """There is nothing to tell."""
        return not (any(self.usage) or self.fails or self.is_reset)


class Total(NamedTuple):
    """What all nodes together know of a target."""

    usage: Told
    fails: int
    last_failure: float
    """By this node's clock."""


def news(memory: Memory) -> list[News]:
    """What there is to tell of the targets that are in use here, and of those that were."""
    found = []
    for record, key in enumerate(memory.used_keys()):
        if key:
            each = _news(memory, record, key)
            if not each.is_empty or memory.is_held(record):
                found.append(each)
    return found


def _news(memory: Memory, record: int, key: int) -> News:
    used = _used(memory, record)
    told = _row(memory.told, record)
    usage = Told(*(now - before for now, before in zip(used, told, strict=True)))
    resets = memory.resets[record]
    if not memory.fails[record] and resets == memory.told_resets[record]:
        return News(record, key, usage, used, 0, 0, resets, False, 0.0)
    with memory.lock:
        fails, resets = memory.fails[record], memory.resets[record]
        new = fails - memory.told_fails[record]
        is_reset = resets != memory.told_resets[record]
        last_failure = memory.last_failure[record]
    return News(record, key, usage, used, new, fails, resets, is_reset, last_failure)


def _used(memory: Memory, record: int) -> Told:
    rows = [_row(worker.usage, record) for worker in memory.workers]
    return Told(*map(sum, zip(*rows, strict=True)))


def _row(usage: Usage, record: int) -> Told:
    return Told(*(column[record] for column in usage))


def take(memory: Memory, told: News, total: Total) -> None:
    """The news were told, after which the total was this."""
    record = told.record
    with memory.lock:
        if memory.keys[record] != told.key:
            return  # another target's by now
        for known, base, used, everybody in zip(
            memory.told, memory.base, told.used, total.usage, strict=True
        ):
            known[record] = used
            base[record] = everybody - used
        if memory.resets[record] == told.resets:  # else a success came meanwhile, and counts
            memory.told_resets[record] = told.resets
            _take_fails(memory, told, total)


def _take_fails(memory: Memory, told: News, total: Total) -> None:
    record = told.record
    before = memory.fails[record]
    fails = total.fails + before - told.counted
    memory.told_fails[record] = total.fails
    if fails == before:
        return
    memory.fails[record] = fails
    if fails > before:
        memory.probe_until[record] = 0.0
        memory.last_failure[record] = max(memory.last_failure[record], total.last_failure)
    memory.changed()
