"""One try at one target: an Attempt with its sockets and its clock. The Attempt decides."""

from __future__ import annotations

from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.relay.guards import Pace
from kong_ai_proxy.relay.tries.base import Carrying, Try
from kong_ai_proxy.relay.tries.call import CallTry
from kong_ai_proxy.relay.tries.flow import FlowTry
from kong_ai_proxy.relay.tries.session import SessionTry


def new_try(
    carrying: Carrying, attempt: Attempt, pace: Pace | None = None, *, is_last: bool = True
) -> Try:
    """A try for this attempt. `is_last`: nobody else is asked after it."""
    if attempt.is_flow:
        kind: type[Try] = FlowTry
    else:
        kind = SessionTry if attempt.is_websocket else CallTry
    return kind(carrying, attempt, pace, is_last=is_last)
