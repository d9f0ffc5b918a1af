"""Errors of OpenAI's format: https://platform.openai.com/docs/guides/error-codes.

Servers that are compatible with it answer with `error` as a text, with the members of an error at
the top level (`message`, `type`, `code`), with `detail` as web frameworks do, with a number for
`code`, and, Google's, with an array of one error.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import objects_of, parsed, plain_error, text_of

_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "badrequesterror": 400,
    "service_unavailable": 503,
    "overloaded_error": 529,
}
"""What the kinds of errors are as statuses, where a stream tells no other."""

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_MAX_TEXT = 2000


def parse_error(status: int, body: bytes) -> ProviderError:
    """See ChatProvider."""
    found = error_of(parsed(body))
    return plain_error(status, body) if found is None else found._replace(status=status)


def error_of(value: object) -> ProviderError | None:
    """The error that a JSON value tells, in any of the shapes above; None where it tells none.

    `status` is that of a numeric code, or of the error's kind.
    """
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, dict):
        return _error(error)
    if isinstance(error, str) and error:
        return _error({**value, "message": text_of(value, "message") or error})
    if error is not None or not _has_text(value):
        return None if not error else ProviderError("unknown error")
    return _error(value)


def _has_text(value: Mapping[str, object]) -> bool:
    return any(value.get(name) for name in ("message", "detail", "errors"))


def _error(error: Mapping[str, object]) -> ProviderError:
    code = error.get("code")
    if code is None:
        code = error.get("error_code")  # Databricks
    kind = text_of(error, "type")
    param = error.get("param")
    return ProviderError(
        message=_message(error)[:_MAX_TEXT],
        type=kind,
        status=_status(code, kind),
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        param=param if isinstance(param, str) else None,
    )


def _message(error: Mapping[str, object]) -> str:
    for name in ("message", "detail"):
        text = text_of(error, name)
        if text:
            return text
    for name in ("detail", "errors", "message"):  # what a validation found: one object each
        texts = [text_of(each, "msg") or text_of(each, "message") for each in _all(error, name)]
        if any(texts):
            return "; ".join(text for text in texts if text)
    return text_of(error, "type") or text_of(error, "code") or "unknown error"


def _all(error: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """The objects of a member; Mistral's `message` has them within `detail`."""
    value = error.get(name)
    return objects_of(value, "detail") if isinstance(value, dict) else objects_of(error, name)


def _status(code: object, kind: str) -> int:
    if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) == 3:
        code = int(code)
    if type(code) is int and 400 <= code <= 599:
        return code
    by_code = _STATUSES.get(code.lower(), 0) if isinstance(code, str) else 0
    return by_code or _STATUSES.get(kind.lower(), 0)


def render_error(error: ProviderError) -> dict[str, object]:
    """See ChatClient."""
    default = "server_error" if error.status >= 500 else "api_error"
    return {
        "error": {
            "message": error.message,
            "type": error.type or _TYPES.get(error.status, default),
            "param": error.param,
            "code": error.code,
        }
    }
