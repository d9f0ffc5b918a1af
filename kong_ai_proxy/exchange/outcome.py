"""What became of one request: the only thing that logs, metrics and traces see of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kong_ai_proxy.formats.usage import Usage

RequestMode = Literal["oneshot", "stream", "realtime"]


class Tried(NamedTuple):
    """One target that was asked."""

    provider: str
    model: str | None
    route_type: str
    scheme: str
    host: str
    port: int
    path: str
    """Without the query, which may hold a key."""
    ip: str | None = None
    """The address that was connected to, where it is known."""


class Outcome(NamedTuple):
    """One request from its arrival to its end."""

    plugin_id: str | None
    request_id: str | None
    consumer: str | None
    """Username of Kong's consumer, or its id."""
    provider: str
    route_type: str
    category: str
    """`genai_category` of the configuration, such as text/generation."""
    request_model: str | None
    response_model: str | None
    mode: RequestMode
    status: int | None
    """What the client was answered; None when it left before."""
    failure: str | None
    """Why it did not end well; None where it did. Holds no secret."""
    usage: Usage | None
    cost: float
    """In the unit of the configured prices; 0 without them."""
    latency_ms: float
    """From the arrival at the relay to the end of the answer."""
    first_token_ms: float | None
    """To the first content of a streamed answer; for one in one piece, to its end."""
    tried: tuple[Tried, ...]
    request_payload: str | None = None
    response_payload: str | None = None
    log_statistics: bool = False
    log_payloads: bool = False
