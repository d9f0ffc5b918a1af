"""Errors in Anthropic's format: https://platform.claude.com/docs/en/api/errors."""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import object_of, parsed, plain_error, text_of

STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status of each type of error, also of one inside a stream."""

_TYPES = {status: name for name, status in STATUSES.items()} | {503: "overloaded_error"}


def parse(status: int, body: bytes) -> ProviderError:
    """A provider's error; of any content, also HTML or nothing."""
    value = parsed(body)
    if isinstance(value, dict):
        error = of_object(value, status)
        if error.message:
            return error
    return plain_error(status, body)


def of_object(value: Mapping[str, object], status: int = 0) -> ProviderError:
    """The error of `{"type": "error", "error": {...}}`, as a body or as an event of a stream. Its
    message is "" where there is none. Bedrock tells only `{"message": ...}`."""
    told = object_of(value, "error")
    kind = text_of(told, "type")
    message = text_of(told, "message") or text_of(value, "message") or kind
    return ProviderError(message, kind, status or STATUSES.get(kind, 0))


def render(error: ProviderError) -> dict[str, object]:
    """An error for a client: its body, or the data of the event `error`."""
    kind = error.type if error.type in STATUSES else type_of(error.status)
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def type_of(status: int) -> str:
    """The type of error that goes with a status; 0 for none that is known."""
    if 400 <= status < 500:
        return _TYPES.get(status, "invalid_request_error")
    return _TYPES.get(status, "api_error")
