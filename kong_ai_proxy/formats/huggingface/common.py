"""What Hugging Face's servers have in common: their errors.

https://huggingface.github.io/text-generation-inference/ (ErrorResponse).
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import object_of, parsed, plain_error, text_of

_STATUSES = {
    "validation": 422,
    "generation": 424,
    "overloaded": 429,
    "incomplete_generation": 500,
}
"""The status of each `error_type`, as each operation of the API reference pairs them."""
_TYPES = {400: "validation", 413: "validation"} | {s: kind for kind, s in _STATUSES.items()}


def parse_error(status: int, body: bytes) -> ProviderError:
    """{"error": ..., "error_type": ...}, alone or in an array, or whatever a proxy says."""
    return error_of(parsed(body), status) or plain_error(status, body)


def error_of(value: object, status: int = 0) -> ProviderError | None:
    """The error that an answer is; None where it is none.

    The router's own errors are objects inside `error`; older models answer with several texts.
    """
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    kind = text_of(value, "error_type")
    if isinstance(error, dict):
        kind = kind or text_of(error, "type")
        message = text_of(error, "message")
    elif isinstance(error, list):
        message = "; ".join(each for each in error if isinstance(each, str))
    else:
        message = error if isinstance(error, str) else ""
    message = message or (text_of(value, "message") if "generated_text" not in value else "")
    if not message:
        return None
    code = object_of(value, "error").get("code")
    return ProviderError(
        message,
        type=kind,
        status=status or _STATUSES.get(kind.lower(), 0),
        code=code if isinstance(code, str) else None,
    )


def render_error(error: ProviderError) -> Mapping[str, str]:
    """The same for a client, whose library knows the four types of text-generation-inference."""
    kind = error.type if error.type in _STATUSES else _TYPES.get(error.status, "generation")
    return {"error": error.message, "error_type": kind}
