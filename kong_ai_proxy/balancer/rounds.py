"""Which target next: the choices for one request, from the first target to the last resort.

A round never gives a target twice. Where nothing is known against any target and none was asked
yet, the algorithm chooses among all candidates and that is all. Otherwise

1. within a tier the algorithm chooses among the targets that were not asked yet, whose breaker
   lets them be asked, and that do not rest;
2. the next tier's turn comes when nobody is left in the one before: `priority` makes tiers of
   equal weights, `semantic` is given its tiers;
3. targets that rest (Retry-After) come last of all, tier by tier. A provider that asked to be left
   alone would most likely refuse again, and may take it ill: a target of a lower tier can answer
   now.

What is left of a tier is balanced by weight among itself.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from typing_extensions import override

from kong_ai_proxy.balancer.consistent_hashing import ConsistentHashing, seeds
from kong_ai_proxy.balancer.identity import identities
from kong_ai_proxy.balancer.least_connections import LeastConnections
from kong_ai_proxy.balancer.lowest_latency import LowestLatency, Measured
from kong_ai_proxy.balancer.lowest_usage import LowestUsage, Used
from kong_ai_proxy.balancer.members import Choice
from kong_ai_proxy.balancer.round_robin import round_robin
from kong_ai_proxy.config import AiProxyAdvanced

GROUPS = 256
"""How many different sets of candidates are remembered in a worker, with how far their turns
are. Aliases and ACLs make few; what is forgotten begins anew."""


class Health(Protocol):
    """What is known against targets."""

    @property
    def doubtful(self) -> frozenset[int]:
        """The targets whose breaker is open or that rest, and maybe some that just did."""
        ...

    def is_available(self, index: int, now: float) -> bool:
        """Whether its breaker lets it be asked, or probed."""
        ...

    def is_resting(self, index: int, now: float) -> bool:
        """Whether it asked to be left alone."""
        ...

    def claim(self, index: int, now: float) -> bool:
        """Whether it may be asked now; takes the one probe of an open breaker."""
        ...

    def release(self, index: int, claimed: float) -> None:
        """Gives back what a `claim` took at that time."""
        ...


class Known(Health, Used, Measured, Protocol):
    """What all algorithms together read of the targets' states."""


class Group:
    """Targets that are balanced among themselves."""

    __slots__ = ("_left", "_without", "failed", "indices", "pick")

    def __init__(self, indices: tuple[int, ...], choice: Choice) -> None:
        self.indices = indices
        self.pick, self.failed = choice.pick, choice.failed
        self._without: Collection[int] = ()
        self._left = indices

    def without(self, targets: frozenset[int]) -> tuple[int, ...]:
        """Those that are left without some. Asked again, it is the same tuple."""
        if targets.isdisjoint(self.indices):
            return self.indices
        if targets != self._without:
            self._left = tuple(index for index in self.indices if index not in targets)
            self._without = targets
        return self._left


class Balancer:
    """One configuration in one worker."""

    def __init__(
        self,
        config: AiProxyAdvanced,
        states: Known,
        random: Callable[[], float] = _random.random,
        *,
        ahead: int = 0,
    ) -> None:
        """`random` gives numbers from 0 up to 1, for lowest-latency. `ahead`: how many turns this
        worker is ahead at the beginning, a different number in each, so that not all of them begin
        with the same target."""
        self._config = config.balancer
        self._states = states
        self._random = random
        self._ahead = ahead
        self._weights = [target.weight for target in config.targets]
        hashes = config.balancer.algorithm == "consistent-hashing"
        self._seeds = seeds(identities(config.targets)) if hashes else ()
        self._groups: dict[tuple[int, ...], tuple[Group, ...]] = {}

    def round(
        self,
        candidates: Sequence[int],
        *,
        key: str = "",
        tiers: Sequence[Sequence[int]] | None = None,
    ) -> Round:
        """The choices for a request that any of `candidates` (indexes of targets) can answer.

        `key`: what consistent-hashing hashes; without one it is round-robin. `tiers`: groups of
        targets, the best first, of which only candidates are asked.
        """
        if tiers is None:
            groups = self._tiers(tuple(candidates))
        else:
            given: Iterable[tuple[int, ...]] = map(tuple, tiers)
            if len(candidates) < len(self._weights):
                allowed = set(candidates)
                given = (tuple(i for i in tier if i in allowed) for tier in tiers)
            groups = tuple(group for tier in given for group in self._tiers(tier))
        return Round(groups, self._states, key)

    def _tiers(self, candidates: tuple[int, ...]) -> tuple[Group, ...]:
        groups = self._groups.get(candidates)
        if groups is None:
            if len(self._groups) >= GROUPS:
                del self._groups[next(iter(self._groups))]
            groups = self._groups[candidates] = self._make(sorted(set(candidates)))
        return groups

    def _make(self, candidates: Sequence[int]) -> tuple[Group, ...]:
        tiers = [candidates] if candidates else []
        if self._config.algorithm == "priority":
            ranks = sorted({self._weights[index] for index in candidates}, reverse=True)
            tiers = [[i for i in candidates if self._weights[i] == rank] for rank in ranks]
        return tuple(Group(tier, self._choice(tier)) for tier in map(tuple, tiers))

    def _choice(self, indices: tuple[int, ...]) -> Choice:
        if len(indices) == 1:
            return _Only(indices[0])
        config, weights, states = self._config, self._weights, self._states
        in_turn = round_robin(indices, weights)
        for _ in range(self._ahead):
            in_turn.pick(indices, "", 0.0)
        match config.algorithm:
            case "consistent-hashing":
                return ConsistentHashing(indices, weights, self._seeds, config.slots, in_turn)
            case "least-connections":
                return LeastConnections(indices, weights, states, self._ahead)
            case "lowest-latency":
                return LowestLatency(indices, states, self._random)
            case "lowest-usage":
                strategy = config.tokens_count_strategy
                assert strategy != "llm-accuracy", "a configuration with it is not valid"
                return LowestUsage(indices, states, strategy, in_turn)
            case "priority" | "round-robin" | "semantic":
                return in_turn


class _Only(Choice):
    """The one target there is."""

    def __init__(self, index: int) -> None:
        self._index = index

    @override
    def pick(self, pool: tuple[int, ...], key: str, now: float) -> int:
        return self._index


class Round:
    """The choices for one request."""

    __slots__ = ("_asked", "_at", "_groups", "_key", "_states", "tried")

    def __init__(self, groups: Sequence[Group], states: Health, key: str) -> None:
        self._groups = groups
        self._states = states
        self._key = key
        self._asked: Group | None = None
        self._at = 0.0
        self.tried: list[int] = []
        """The targets that `next` gave, in order."""

    def next(self, now: float) -> int | None:
        """The index of the target to ask, None when nobody is left. `now`: time.monotonic().

        Asked again, it takes the target it gave before to have failed. Where something is known
        against a target, this takes the probe of its breaker: whoever asks for a target asks it.
        """
        if self._asked is not None:
            self._asked.failed(self.tried[-1])
            self._asked = None
        self._at = now
        doubtful = self._states.doubtful
        if doubtful:
            index = self._of_the_well(doubtful, now)
        elif self.tried:
            index = self._first(frozenset(self.tried), now)
        elif self._groups:
            group = self._asked = self._groups[0]
            index = group.pick(group.indices, self._key, now)
        else:
            index = None
        if index is not None:
            self.tried.append(index)
        return index

    def give_back(self) -> None:
        """The target that `next` gave was not asked, or nobody has seen how it fared."""
        if self.tried:
            self._states.release(self.tried[-1], self._at)

    def _of_the_well(self, doubtful: frozenset[int], now: float) -> int | None:
        available, resting = self._states.is_available, self._states.is_resting
        out = {index for index in doubtful if not available(index, now)}
        tired = {index for index in doubtful - out if resting(index, now)}
        found = self._first(frozenset(out.union(tired, self.tried)), now)
        if found is None and tired:
            found = self._first(frozenset(out.union(self.tried)), now)
        return found

    def _first(self, without: frozenset[int], now: float) -> int | None:
        """The one chosen of the first tier that has any left."""
        for group in self._groups:
            pool = group.without(without)
            while pool:
                index = group.pick(pool, self._key, now)
                # Another worker may be quicker to take a probe.
                if self._states.claim(index, now):
                    self._asked = group
                    return index
                pool = tuple(each for each in pool if each != index)
        return None
