"""Points in time as AWS writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds(text: str) -> int:
    """Seconds since 1970 of a time in ISO 8601, or of a header's HTTP date; 0 for anything
    else."""
    try:
        at = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
        return int(at.timestamp() if at.tzinfo else at.replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0


def iso(at: int) -> str:
    """A time (seconds since 1970) in ISO 8601, as AWS takes it in a query."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
