"""What the relay tells of a request once it is over."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.cost import cost
from kong_ai_proxy.exchange.messages import Address, ClientRequest
from kong_ai_proxy.exchange.outcome import Outcome, Tried
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.relay.ticket import Claims
from kong_ai_proxy.telemetry import json_lines, kong_log
from kong_ai_proxy.telemetry.frame import frame

MARKER_HEADER = "x-kong-ai-proxy-marker"
_MARKER = re.compile(r"[0-9a-f]{32}")
REDACTED = "REDACTED"
_REQUEST_ID = "x-kong-request-id"


class Ending(NamedTuple):
    """How a request went. Times are seconds of one clock."""

    started: float
    ended: float
    first_content: float | None
    status: int | None
    failure: str | None


def outcome(
    plan: Plan,
    claims: Claims,
    client: ClientRequest,
    attempt: Attempt,
    asked: tuple[Tried, ...],
    end: Ending,
) -> Outcome:
    """The Outcome of one request, which `attempt` has answered."""
    logging, first = attempt.target.logging, end.first_content
    reading, usage, keeps = attempt.reading, attempt.usage, logging.log_payloads
    return Outcome(
        plugin_id=plan.plugin_id,
        request_id=client.header(_REQUEST_ID),
        consumer=claims.consumer_name or claims.consumer_id or None,
        provider=attempt.model.provider,
        route_type=attempt.target.route_type,
        category=plan.config.genai_category,
        request_model=attempt.request_model,
        response_model=reading.model if reading else None,
        mode=attempt.mode,
        status=end.status,
        failure=masked(end.failure or (reading.error if reading else None), attempt),
        usage=usage,
        cost=cost(attempt.model.options, usage) if usage else 0.0,
        latency_ms=(end.ended - end.started) * 1000,
        first_token_ms=(first - end.started) * 1000 if first is not None else None,
        tried=asked,
        request_payload=masked(attempt.request_payload(), attempt) if keeps else None,
        response_payload=masked(reading.payload(), attempt) if reading and keeps else None,
        log_statistics=logging.log_statistics,
        log_payloads=logging.log_payloads,
    )


def masked(text: str | None, attempt: Attempt) -> str | None:
    """`text` without the operator's credentials."""
    for secret in attempt.secrets if text else ():
        text = text.replace(secret, REDACTED) if text else text
    return text


def tried(attempt: Attempt, place: Address, ip: str | None) -> Tried:
    """The target that was asked."""
    return Tried(
        provider=attempt.model.provider,
        model=attempt.request_model,
        route_type=attempt.target.route_type,
        scheme=place.scheme,
        host=place.host,
        port=place.port,
        path=place.path,
        ip=ip,
    )


def marker(client: ClientRequest) -> str | None:
    """What the shim chose for frames of this request; None where there is no shim."""
    found = client.header(MARKER_HEADER)
    return found if found and _MARKER.fullmatch(found) else None


def as_frame(mark: str, found: Outcome) -> bytes:
    """The outcome for the shim, which gives it to Kong's log plugins."""
    return frame(mark, kong_log.fields(found))


def as_line(found: Outcome) -> None:
    """The outcome as a line of the log, where no shim takes it."""
    if found.log_statistics or found.log_payloads:
        json_lines.write(found, time.time())
