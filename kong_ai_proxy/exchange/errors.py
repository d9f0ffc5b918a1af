"""Answers of our own: why a request does not reach the provider."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

OK = 200
FIRST_ERROR = 300
"""Whatever is no success is an error: nothing here caches or follows."""
BAD_REQUEST = 400
FIRST_CLIENT_ERROR = 400
LAST_ERROR = 599
FORBIDDEN = 403
NOT_FOUND = 404
METHOD_NOT_ALLOWED = 405
CONTENT_TOO_LARGE = 413
UNSUPPORTED_MEDIA_TYPE = 415
HEADERS_TOO_LARGE = 431
UPGRADE_REQUIRED = 426
SERVER_ERROR = 500
BAD_GATEWAY = 502
SERVICE_UNAVAILABLE = 503
GATEWAY_TIMEOUT = 504


class Refused(Exception):  # noqa: N818 - an outcome for the client, not a fault of the program
    """The request ends here with `status` and an error in the client's format."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    def answer(self) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the answer, with OpenAI's error shape."""
        body = error_body(self.message)
        return self.status, body, {"content-type": "application/json", **self.headers}


def error_body(message: str) -> bytes:
    """An error as JSON in OpenAI's shape."""
    return orjson.dumps({"error": {"message": printable(message)}})


def printable(text: str) -> str:
    """`text` with bytes that were not UTF-8 shown as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
