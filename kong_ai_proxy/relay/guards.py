"""Limits on what a target may take before the client gets its answer. Off unless the operator sets
them; none of them touches a stream that the client reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from kong_ai_proxy.exchange.answer import is_event_stream
from kong_ai_proxy.exchange.errors import GATEWAY_TIMEOUT, Refused
from kong_ai_proxy.exchange.messages import Abort, Action, Commit, Emit, Fail, Finish

EVENTS = 10
"""A stream's pace is that of its first events."""
MAX_HELD = 64 << 10
"""Bytes that tell enough, however few events they are."""
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
"""Of server-sent events; Google's have the longer one."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Seconds from the request's arrival, or from that of one try; None for no limit."""

    first_token_timeout: float | None = None
    """Of one try after which there may be another, until the first content of a stream."""
    min_stream_rate: float | None = None
    """Events a second at the beginning of a stream."""
    time_budget: float | None = None
    """Of all tries, until the client's answer begins."""

    def left(self, elapsed: float) -> float:
        """What is left of the budget."""
        return math.inf if self.time_budget is None else self.time_budget - elapsed

    def seconds(self, elapsed: float, *, is_stream: bool) -> float | None:
        """What one try may take until its answer begins."""
        first = self.first_token_timeout if is_stream else None
        limits = (first, None if self.time_budget is None else self.left(elapsed))
        return min((each for each in limits if each is not None), default=None)

    def pace(self, *, is_stream: bool) -> Pace | None:
        """What a stream's beginning has to pass, where there is a limit."""
        rate = self.min_stream_rate
        return Pace(rate) if rate and is_stream else None


NO_GUARDS = Guards()


class Pace:
    """Holds a stream that has begun until it has shown that it is quick enough."""

    def __init__(self, rate: float) -> None:
        """`rate` is events a second: most providers send one for each token."""
        self.seconds = EVENTS / rate
        """What the first EVENTS may take."""
        self.is_over = False
        self._held: list[Action] = []
        self._is_sse = False
        self._events = 0
        self._size = 0

    def take(self, action: Action) -> Iterator[Action]:
        """What is to be done now."""
        self._held.append(action)
        if isinstance(action, Commit):
            self._is_sse = is_event_stream(action.head)
        elif isinstance(action, Emit):
            self._events += self._ends_in(action.chunk)
            self._size += len(action.chunk)
        enough = self._events >= EVENTS or self._size > MAX_HELD
        if enough or isinstance(action, (Abort, Finish)):
            self.is_over = True
            yield from self._held
            self._held = []

    def _ends_in(self, chunk: bytes) -> int:
        """How many events end there. In other formats (Bedrock's, a JSON array) a piece is one."""
        if self._is_sse:
            return sum(map(chunk.count, _EVENT_ENDS))
        return 1 if chunk else 0


def too_late(reason: str) -> Fail:
    """What a target's time is over with."""
    return Fail("timeout", reason, Refused(GATEWAY_TIMEOUT, "the provider did not answer in time"))
