"""An answer of which the client gets nothing until it is certain to be the one.

A target that fails before that may be followed by another one, and the client never knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from kong_ai_proxy.exchange.answer import BROKE_OFF
from kong_ai_proxy.exchange.errors import (
    BAD_GATEWAY,
    FIRST_CLIENT_ERROR,
    GATEWAY_TIMEOUT,
    OK,
    SERVER_ERROR,
    Refused,
)
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    Commit,
    Emit,
    Event,
    Fail,
    Finish,
    Head,
    Lost,
    NextCall,
    Pause,
    Take,
)
from kong_ai_proxy.exchange.observed import ObservedStream
from kong_ai_proxy.exchange.reading import Known
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import parsed
from kong_ai_proxy.formats.openai.errors import error_of

UNSUITED = "unsuited"
"""The criterion of a target that cannot be asked this, as has turned out before it was. No
configuration names it: it is nobody's failure."""

MAX_HELD = 64 << 10
"""Bytes of one answer that wait. What is longer passes on, and can then no longer fail."""

_END = re.compile(rb'\[DONE\]|"finish_reason"\s*+:\s*+"')
"""What a stream of OpenAI's ends with, though it says nothing."""
_ANSWERS = frozenset({"choices", "content", "data", "id", "output", "text"})
"""Members of answers that are more than an error."""
_OVERLOADED = 529
"""Anthropic's (https://docs.anthropic.com/en/api/errors); `failover_criteria` has no word of its
own for it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What an attempt has to mind because others may follow it."""

    counts: bool = False
    """The balancer wants to know the usage."""
    holds: bool = False
    """A stream waits for its first content, a whole answer for its end."""
    statuses: frozenset[int] = frozenset()
    """Of answers after which another target may be asked."""


NO_TRIAL = Trial()


class Held(Protocol):
    """What has to be known of an answer that is held."""

    @property
    def is_stream(self) -> bool: ...

    @property
    def reading(self) -> Known | None: ...


class Hold:
    """The gate that one attempt's actions pass."""

    def __init__(
        self,
        trial: Trial,
        told: Callable[[ProviderError], tuple[Action, ...]],
        *,
        is_json: bool = False,
    ) -> None:
        """`told` makes of an error inside a stream what the client is told in place of it.
        `is_json`: an answer of status 200 that is no stream has to be JSON."""
        self._is_json = is_json
        self.is_open = not (trial.holds or trial.statuses)
        self.waits = False
        """Whether this is an error that only waits for its end."""
        self._trial = trial
        self._told = told
        self._upstream = 0
        self._lost: Lost | None = None
        self._held: list[Action] = []
        self._size = 0

    def look_at(self, event: Event) -> None:
        """Learn what the actions to come are about."""
        if isinstance(event, Head):
            self._upstream = event.head.status
            self.waits = not self.is_open and status_of(self._upstream) in self._trial.statuses
            self.is_open = self.is_open or not (self._trial.holds or self.waits)
        elif isinstance(event, Lost):
            self._lost = event

    def passed(
        self, actions: Iterator[Action], answer: Callable[[], Held | None]
    ) -> Iterator[Action]:
        """What of the actions goes on. Lazily."""
        for action in actions:
            if self.is_open or isinstance(action, (NextCall, Take, Pause)):
                yield action
            elif isinstance(action, Fail):
                self.is_open = True
                yield self._own(action)
            elif isinstance(action, Abort):
                self.is_open = True
                yield self._broken()
            else:
                self._keep(action)
                if isinstance(action, Finish):
                    yield from self._decide(answer())
        held = answer()
        if not self.is_open and held is not None:
            yield from self._look(held.reading, _is_stream(held))

    def _keep(self, action: Action) -> None:
        if isinstance(action, Emit):
            if not action.chunk:  # a stream of pings is held for as long as it likes
                return
            self._size += len(action.chunk)
        self._held.append(action)

    def _own(self, fail: Fail) -> Fail:
        """Where a head of an error has come, that is the failure, whatever happened then."""
        if self._upstream < FIRST_CLIENT_ERROR:
            return fail
        return fail._replace(criterion=_criterion(self._upstream), answer=_brief(self._upstream))

    def _broken(self) -> Fail:
        """It broke off before the client had anything of it."""
        lost = self._lost or Lost("error", BROKE_OFF)
        status = GATEWAY_TIMEOUT if lost.criterion == "timeout" else BAD_GATEWAY
        return self._own(Fail(lost.criterion, lost.reason, Refused(status, BROKE_OFF)))

    def _decide(self, held: Held | None) -> Iterator[Action]:
        """The answer is complete: whether it is an error."""
        self.is_open = True
        first = self._held[0]
        status = first.head.status if isinstance(first, Commit) else self._upstream
        told = tuple(self._held)
        if self.waits and status >= FIRST_CLIENT_ERROR:  # else a flow knows what to make of it
            reason = f"status {self._upstream}"
            yield Fail(_criterion(self._upstream), reason, _brief(self._upstream), told=told)
        elif status != self._upstream and status_of(status) in self._trial.statuses:
            yield _inside(status, f"an error of status {status}", told)
        elif status >= SERVER_ERROR > self._upstream:
            yield _inside(status, "an error in an answer of status 200", told)
        elif status >= FIRST_CLIENT_ERROR and not self._upstream:
            yield Fail(UNSUITED, "it cannot be asked this", _brief(status), told=told)
        elif status >= FIRST_CLIENT_ERROR > self._upstream:  # a filter's word, or a limit: it is
            yield from self._held  # the client's
        elif held is not None and (failed := self._said(held)) is not None:
            yield self._failed(failed)
        else:
            yield from self._held

    def _failed(self, error: ProviderError) -> Fail:
        reason = f"an error in an answer of status 200: {error.message}"
        return _inside(error.status, reason, self._told(error))

    def _said(self, held: Held) -> ProviderError | None:
        """What went wrong in an answer of status 200, all of which is held: it is an error, or a
        stream that says nothing and has no end."""
        if self._upstream != OK:
            return None
        body = b"".join(action.chunk for action in self._held if isinstance(action, Emit))
        if not _is_stream(held):
            if self._is_encoded:
                return None
            return _error_in(body, is_json=self._is_json)
        reading = held.reading
        if reading is None or reading.has_content:
            return None
        if isinstance(reading, ObservedStream) or _END.search(body):
            return reading.failed
        return reading.failed or ProviderError(BROKE_OFF)

    @property
    def _is_encoded(self) -> bool:
        """Whether what is held is compressed, for a client that takes it so."""
        first = self._held[0]
        encoding = first.head.header("content-encoding") if isinstance(first, Commit) else None
        return encoding not in (None, "", "identity")

    def _look(self, reading: Known | None, is_stream: bool) -> Iterator[Action]:
        """Whether what is held is enough to know."""
        if self.waits:
            if self._size > MAX_HELD:
                self.is_open = True
                reason = f"status {self._upstream}"
                yield Fail(_criterion(self._upstream), reason, _brief(self._upstream))
            return
        if is_stream and reading is not None and reading.failed and not reading.has_content:
            self.is_open = True
            yield self._failed(reading.failed)
            return
        has_content = is_stream and (reading is None or reading.has_content)
        if has_content or self._size > MAX_HELD:
            self.is_open = True
            yield from self._held
            self._held = []


def _is_stream(held: Held) -> bool:
    return held.is_stream or isinstance(held.reading, ObservedStream)


def _error_in(body: bytes, *, is_json: bool) -> ProviderError | None:
    """The error that a whole answer is; None where it is anything else."""
    if not is_json and b'"error"' not in body:
        return None
    value = parsed(body)
    if is_json and not isinstance(value, (dict, list)):
        return ProviderError("the provider's answer is no JSON object")
    if not isinstance(value, dict) or not value.get("error") or value.keys() & _ANSWERS:
        return None
    return error_of(value)


def status_of(status: int) -> int:
    """The status under which `failover_criteria` knows it."""
    return 503 if status == _OVERLOADED else status


def _criterion(status: int) -> str:
    return f"http_{status_of(status)}"


def _brief(status: int) -> Refused:
    return Refused(status, f"the provider answered with status {status}")


def _inside(status: int, reason: str, told: tuple[Action, ...]) -> Fail:
    """An error in an answer that had begun well. One that is not the client's is a failure like any
    other, whatever its name."""
    named = _criterion(status)
    known = status or BAD_GATEWAY
    if FIRST_CLIENT_ERROR <= status < SERVER_ERROR:
        return Fail(named, reason, _brief(known), told=told)
    return Fail("error", reason, _brief(known), told=told, also=named)
