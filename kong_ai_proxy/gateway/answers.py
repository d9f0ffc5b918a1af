"""Answers of Kong's own: its error bodies in the format the client accepts, and their headers."""

from __future__ import annotations

import re

from kong_ai_proxy.gateway.context import Exit, Headers

SERVER = "kong/3.10.0 (stand-in)"
"""What stands in Server and Via: the Kong whose behaviour this copies, and that it is none."""

_JSON = "application/json; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"
_TEMPLATES = {
    _JSON: '{{\n  "message":"{message}",\n  "request_id":"{request_id}"\n}}',
    _PLAIN: "{message}\nrequest_id: {request_id}\n",
}
_QUALITY = re.compile(r"\bq\s*=\s*([01](?:\.\d{0,3})?)")

MESSAGES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    414: "URI too long",
    494: "Request header or cookie too large",
    500: "An unexpected error occurred",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}


def error(
    status: int,
    message: str | None = None,
    *,
    request_id: str,
    accept: str = "*/*",
    headers: Headers | None = None,
) -> Exit:
    """An error as Kong words it, as JSON, or as plain text for a client that prefers it.

    `message` None: the text that Kong has for the status.
    """
    content_type = _negotiate(accept)
    text = message if message is not None else MESSAGES.get(status, "")
    text = text or f"The upstream server responded with {status}"
    body = _TEMPLATES[content_type].format(message=text, request_id=request_id)
    status = 400 if status == 494 else status
    return Exit(status, body.encode(), [("Content-Type", content_type), *(headers or [])])


def _negotiate(accept: str) -> str:
    best, chosen = 0.0, _JSON
    for item in accept.split(","):
        media_type, _, parameters = item.strip().partition(";")
        quality = _QUALITY.search(parameters)
        weight = float(quality[1]) if quality else 1.0
        if weight > best:
            best = weight
            chosen = _PLAIN if media_type.strip().lower() == "text/plain" else _JSON
    return chosen
