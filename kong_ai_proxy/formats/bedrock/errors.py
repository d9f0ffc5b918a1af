"""Errors of Bedrock, whole ones and those inside a stream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors.
AWS tells the kind of an error in the header `x-amzn-ErrorType`; its clients also look for it in the
body, as `__type`, which is the way it goes where there is only a body (Smithy's restJson1,
https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#operation-error-serialization).
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.aws_event_stream import Message, encode
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import json_text, parsed, plain_error, text_of

STATUSES: Mapping[str, int] = {
    "ValidationException": 400,
    "ConflictException": 400,
    "ServiceQuotaExceededException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
"""The status of each kind of error, also of one inside a stream."""

_NAMES: Mapping[int, str] = {
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
    529: "ServiceUnavailableException",
}
_IN_STREAM = frozenset(
    {
        "InternalServerException",
        "ModelStreamErrorException",
        "ServiceUnavailableException",
        "ThrottlingException",
        "ValidationException",
    }
)
"""What a stream of ConverseStream can tell."""


def exception_name(error: ProviderError) -> str:
    """AWS's name for a kind of error, for the header `x-amzn-ErrorType`."""
    if error.type in STATUSES:
        return error.type
    if error.status in _NAMES:
        return _NAMES[error.status]
    return "ValidationException" if 400 <= error.status < 500 else "InternalServerException"


def parse(status: int, body: bytes) -> ProviderError:
    """A provider's error; of any content, also HTML or nothing."""
    value = parsed(body)
    if isinstance(value, dict):
        message = text_of(value, "message") or text_of(value, "Message")
        kind = _kind(text_of(value, "__type") or text_of(value, "code"))
        if message or kind:
            named = kind or exception_name(ProviderError("", status=status))
            return ProviderError(message or named, named, status)
    error = plain_error(status, body)
    return error._replace(type=exception_name(error))


def _kind(told: str) -> str:
    """Without the name space before it and the address after it, which some services write."""
    name = told.rpartition("#")[2].partition(":")[0]
    return name[:1].upper() + name[1:]


def render(error: ProviderError) -> dict[str, object]:
    """An error's body for a client."""
    return {"__type": exception_name(error), "message": error.message}


def of_message(message: Message) -> ProviderError | None:
    """The error that a message of a stream tells; None where it is none. Those that the service
    model names are exceptions; any other one is an error whose text stands in its headers."""
    kind = message.header(":message-type")
    if kind == "exception":
        return _exception(message)
    if kind != "error":
        return None
    name = _kind(message.header(":error-code")) or "InternalServerException"
    text = message.header(":error-message") or name
    return ProviderError(text, name, STATUSES.get(name, 500))


def _exception(message: Message) -> ProviderError:
    name = _kind(message.header(":exception-type")) or "InternalServerException"
    value = parsed(message.payload)
    told = text_of(value, "message") if isinstance(value, dict) else ""
    return ProviderError(told or name, name, STATUSES.get(name, 500))


def encoded(error: ProviderError) -> bytes:
    """The message of a stream that tells a client of an error."""
    name = exception_name(error)
    if name not in _IN_STREAM:
        client = 400 <= STATUSES[name] < 500 and not name.startswith("Model")
        name = "ValidationException" if client else "ModelStreamErrorException"
    headers = {
        ":exception-type": name[0].lower() + name[1:],
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode(headers, json_text({"message": error.message}).encode())
