"""One line of JSON in the log for each request.

The fields under `ai` are those that Kong's log plugins would show. The line is for a log
collector that reads the process's output, and for a Kong without the Lua shim.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from kong_ai_proxy.exchange.outcome import Outcome
from kong_ai_proxy.telemetry.bounded import encoded
from kong_ai_proxy.telemetry.kong_log import clipped, fields

MAX_LINE = 32 * 1024
"""Longest line in bytes: half of what a pipe holds, so that a line is written whole or not."""

_logger = logging.getLogger("kong_ai_proxy.outcome")


def write(outcome: Outcome, now: float) -> None:
    """Log the outcome at level info. `now` is seconds since 1970. Never raises.

    Whether a full pipe makes a request wait is the handler's matter; that of the workers drops
    the line instead.
    """
    if not _logger.isEnabledFor(logging.INFO):
        return
    try:
        _logger.info("%s", line(outcome, now))
    except Exception as error:  # a line is lost, never a request
        _logger.warning("an outcome could not be logged: %s", type(error).__name__)


def line(outcome: Outcome, now: float) -> str:
    """The line, without a line feed. What is not known is left out."""
    head = _head(outcome, now)
    return encoded(fields(outcome), MAX_LINE, lambda found: {**head, **_nested(found)}).decode()


def _head(outcome: Outcome, now: float) -> dict[str, object]:
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    members = {
        "time": time.replace("+00:00", "Z"),
        "request_id": outcome.request_id and clipped(outcome.request_id),
        "consumer": outcome.consumer and clipped(outcome.consumer),
        "status": outcome.status,
        "failure": outcome.failure and clipped(outcome.failure),
    }
    return {name: value for name, value in members.items() if value is not None}


def _nested(found: Mapping[str, object]) -> dict[str, object]:
    """`ai.proxy.meta` as the member `meta` of an object `proxy` of an object `ai`, and so on."""
    tree: dict[str, object] = {}
    for name, value in found.items():
        *above, last = name.split(".")
        place = tree
        for part in above:
            place = _below(place, part)
        place[last] = value
    return tree


def _below(place: dict[str, object], name: str) -> dict[str, object]:
    found = place.setdefault(name, {})
    assert isinstance(found, dict)
    return found
