"""Google's errors: https://cloud.google.com/apis/design/errors.

`{"error": {"code", "message", "status", "details"}}`, in an array where a stream was asked for
without `alt=sse`.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats import fields
from kong_ai_proxy.formats.errors import ProviderError

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CODES = {
    **{name: code for code, name in _STATUSES.items()},
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 409,
    "DATA_LOSS": 500,
    "UNKNOWN": 500,
}
_SERVER_ERROR = 500


def parse_error(status: int, body: bytes) -> ProviderError:
    """A provider's error of any content."""
    return told(fields.parsed(body), status) or fields.plain_error(status, body)


def told(value: object, status: int = 0) -> ProviderError | None:
    """The error that a JSON value is; None where it is none."""
    if isinstance(value, list):
        found = (told(each, status) for each in value)
        return next((each for each in found if each), None)
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return None
    code, kind = error.get("code"), fields.text_of(error, "status")
    own = code if type(code) is int else _CODES.get(kind, 0)
    details = fields.objects_of(error, "details")
    reason = next((fields.text_of(each, "reason") for each in details if "reason" in each), "")
    return ProviderError(
        fields.text_of(error, "message") or kind or "the provider told no reason",
        type=kind,
        status=status or own,
        code=reason or None,
        param=_field(details),
    )


def _field(details: list[Mapping[str, object]]) -> str | None:
    violations = (fields.objects_of(each, "fieldViolations") for each in details)
    names = (fields.text_of(each, "field") for found in violations for each in found)
    return next((name for name in names if name), None)


def render_error(error: ProviderError) -> dict[str, object]:
    """An error for a client of Gemini's."""
    kind = error.type if error.type in _CODES else ""
    code = error.status or _CODES.get(kind, _SERVER_ERROR)
    kind = kind or _STATUSES.get(code) or _of_class(code)
    return {"error": {"code": code, "message": error.message, "status": kind}}


def _of_class(code: int) -> str:
    if code >= _SERVER_ERROR:
        return "UNAVAILABLE" if code > _SERVER_ERROR else "INTERNAL"
    return "INVALID_ARGUMENT"
