"""What one configuration's targets are to the relay: which is next, and how each of them fares."""

from __future__ import annotations

import email.utils
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Protocol

from kong_ai_proxy.balancer.rounds import Balancer, Round
from kong_ai_proxy.balancer.states import States
from kong_ai_proxy.config import AiProxyAdvanced
from kong_ai_proxy.exchange.ask import Ask
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.cost import cost
from kong_ai_proxy.exchange.errors import NOT_FOUND, OK, SERVER_ERROR
from kong_ai_proxy.exchange.hold import UNSUITED, Trial, status_of
from kong_ai_proxy.exchange.messages import Fail, ResponseHead

_log = logging.getLogger(__name__)

MAX_REST = 300.0
"""Seconds: what a provider's Retry-After counts at most. Some name the end of the month."""

MAX_LATENCY = 60.0
"""Seconds: what a failure counts at most, so that it is soon forgotten. It is as slow as two of the
slowest target's answers, or tokens."""

_IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})
"""RFC 9110 section 9.2.2."""
_ALWAYS_COUNT = frozenset({"error", "invalid_header", "timeout"})
_NEVER_COUNT = frozenset({"http_403", "http_404"})
_ANY_TARGET = "non_idempotent"
MISS = "http_404"
"""What a target says that has not what the client looks for."""


class Router(Protocol):
    """Who finds the targets that a prompt is for."""

    async def tiers(
        self, prompt: str, candidates: Sequence[int], seconds: float = math.inf
    ) -> list[list[int]]:
        """Groups of them, the best first, within `seconds`. Raises Refused."""


class Balancing:
    """One configuration of ai-proxy-advanced in one worker."""

    def __init__(
        self,
        config: AiProxyAdvanced,
        states: States,
        semantic: Router | None = None,
        *,
        by_opening: bool = False,
        ahead: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`semantic` is there for that algorithm. `by_opening`: consistent-hashing takes how a
        conversation began where the header is absent. `ahead` is a different number in each worker,
        so that not all begin with the first target."""
        own = config.balancer
        self.retries = own.retries
        self.states = states
        self.now = now
        self.used_at = now()
        self._balancer = Balancer(config, states, ahead=ahead)
        self._semantic = semantic
        self._opens = own.max_fails > 0
        self._names = [f"{t.model.provider}/{t.model.name}" for t in config.targets]
        self._hash_header = own.hash_on_header.lower()
        self._hashes = own.algorithm == "consistent-hashing"
        self._by_opening = by_opening
        self._criteria = frozenset(own.failover_criteria)
        self._statuses = frozenset(
            int(name.removeprefix("http_")) for name in self._criteria if name.startswith("http_")
        )
        self._by_latency = own.algorithm == "lowest-latency"
        self._by_token = own.latency_strategy == "tpot"
        self._counts = own.algorithm == "lowest-usage" or (self._by_latency and self._by_token)

    async def round(self, ask: Ask, seconds: float = math.inf) -> Round:
        """The targets for one request, one after the other; the choice takes at most `seconds`.
        Raises Refused."""
        tiers = None
        if self._semantic is not None and len(ask.candidates) > 1:
            tiers = await self._semantic.tiers(ask.prompt(), ask.candidates, seconds)
        return self._balancer.round(ask.candidates, key=self._key(ask), tiers=tiers)

    def _key(self, ask: Ask) -> str:
        """What consistent-hashing hashes."""
        if not self._hashes:
            return ""
        found = ask.request.header(self._hash_header)
        return found or (ask.opening() if self._by_opening else "")

    def trial(self, ask: Ask, *, is_last: bool) -> Trial:
        """What the next attempt has to mind."""
        several = len(ask.candidates) > 1
        leads_on = several and not is_last and self._may_repeat(ask.method)
        statuses = self._statuses if leads_on else frozenset()
        if several and ask.seeks:  # the last one's too: what another one said may count for more
            statuses |= {NOT_FOUND}
        return Trial(self._counts, several, statuses)

    def _may_repeat(self, method: str) -> bool:
        """Whether a request that was sent may be sent again."""
        return method in _IDEMPOTENT or _ANY_TARGET in self._criteria

    def leads_on(self, fail: Fail, ask: Ask, *, sent: bool) -> bool:
        """Whether another target is asked after this failure, as nginx has it for
        proxy_next_upstream: what may have had an effect is repeated only where that is allowed."""
        if fail.criterion == UNSUITED or is_miss(fail, ask):  # had no effect
            return True
        if ask.is_costly and sent and not fail.criterion.startswith("http_"):
            return False
        named = {fail.criterion, fail.also} & self._criteria
        return bool(named) and (not sent or self._may_repeat(ask.method))

    # ---- how a target fares

    def failed(self, index: int, attempt: Attempt | None, fail: Fail) -> None:
        """A try ended with `fail`."""
        now = self.now()
        if self._counts_as_failure({fail.criterion, fail.also}):
            self._count_failure(index, now)
        if self._by_latency:
            slowest = max(self.states.latencies(now))
            self.states.took(index, min(2 * slowest or MAX_LATENCY, MAX_LATENCY), now)
        if attempt is not None:
            self._note_usage(index, attempt)
            self._note_rest(index, attempt.answered, now)

    def ended(self, index: int, attempt: Attempt, seconds: float) -> None:
        """A try has given the client its answer, after `seconds`."""
        now = self.now()
        self._note_usage(index, attempt)
        self._note_rest(index, attempt.answered, now)
        criteria = _criteria(attempt)
        if self._counts_as_failure(criteria):
            self._count_failure(index, now)
        elif not criteria & _NEVER_COUNT & self._criteria:
            self._count_success(index, now)
        head = attempt.answered
        if self._by_latency and head is not None and head.status == OK:
            self._note_latency(index, attempt, seconds, now)

    def missed(self, index: int) -> None:
        """A try has found that the target has not what the client looks for: it is well."""
        self._count_success(index, self.now())

    def left(self, index: int, attempt: Attempt) -> None:
        """The client has left in the middle of a try: what it has used counts."""
        self._note_usage(index, attempt)

    def _count_failure(self, index: int, now: float) -> None:
        was_closed = self._opens and self.states.is_available(index, now)
        self.states.failed(index, now)
        if was_closed and not self.states.is_available(index, now):
            _log.warning("target %d (%s): its breaker is open", index, self._names[index])

    def _count_success(self, index: int, now: float) -> None:
        was_in_doubt = self._opens and index in self.states.doubtful
        self.states.succeeded(index, now)
        if was_in_doubt and index not in self.states.doubtful:
            _log.warning("target %d (%s): its breaker is closed", index, self._names[index])

    def _counts_as_failure(self, criteria: set[str]) -> bool:
        """Whether this is one of the failures that open a breaker."""
        named = criteria & self._criteria
        return bool(criteria & _ALWAYS_COUNT or named - _NEVER_COUNT)

    def _note_usage(self, index: int, attempt: Attempt) -> None:
        usage = attempt.usage if self._counts else None
        if usage is not None:
            price = cost(attempt.model.options, usage)
            self.states.used(index, usage.prompt_tokens, usage.completion_tokens, price)

    def _note_latency(self, index: int, attempt: Attempt, seconds: float, now: float) -> None:
        """Per token, of answers that have no output tokens per token of the prompt."""
        if self._by_token:
            usage = attempt.usage
            tokens = (usage.completion_tokens or usage.prompt_tokens) if usage else 0
            seconds /= max(tokens, 1)
        self.states.took(index, seconds, now)

    def _note_rest(self, index: int, head: ResponseHead | None, now: float) -> None:
        """Retry-After (RFC 9110 section 10.2.3) of a status after which another target is asked."""
        if head is None or status_of(head.status) not in self._statuses:
            return
        seconds = retry_after(head.header("retry-after"), time.time())
        if seconds > 0:
            self.states.rest(index, now + min(seconds, MAX_REST))


def is_miss(fail: Fail, ask: Ask) -> bool:
    """Whether the target only has not what the client looks for, which another one may have."""
    return ask.seeks and fail.criterion == MISS


def _criteria(attempt: Attempt) -> set[str]:
    """What was wrong with an answer that the client got, in the words of `failover_criteria`."""
    found: set[str] = set()
    head, answer = attempt.answered, attempt.answer
    if head is not None and head.status != OK:
        found.add(f"http_{status_of(head.status)}")
    if answer is not None and answer.failure:
        found.add("error")
    failed = answer.reading.failed if answer is not None and answer.reading else None
    if failed is not None and (not failed.status or failed.status >= SERVER_ERROR):
        found.add("error")
    return found


def retry_after(told: str | None, now: float) -> float:
    """Seconds from `now` (since 1970) until a provider wants to be asked again; 0 where it does not
    say."""
    told = (told or "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:
        date = email.utils.parsedate_to_datetime(told)
    except (OverflowError, TypeError, ValueError):
        return 0.0
    if date.tzinfo is None:  # as in asctime's format: GMT all the same (RFC 9110 section 5.6.7)
        date = date.replace(tzinfo=UTC)
    return max(date.timestamp() - now, 0.0)
