"""Answers of OAuth 2.0 token endpoints (RFC 6749 section 5)."""

from __future__ import annotations

import re
from typing import Any

import orjson

from kong_ai_proxy.auth.identity import BearerToken
from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.http import Answer

FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}

OK = 200
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_CODES = (  # RFC 6749 section 5.2, RFC 8693 section 2.2.2
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "temporarily_unavailable",
)
_MICROSOFT_CODE = re.compile(r"AADSTS\d{1,10}")


def token(what: str, answer: Answer, now: float) -> BearerToken:
    """The token of an answer. Raises TokenError, which names the endpoint as `what`."""
    if answer.status != OK:
        code = known_code(answer.data.decode(errors="replace"))
        raise TokenError(f"{what} answered {answer.status}{code and ' '}{code}")
    try:
        data = orjson.loads(answer.data)
        found, expires_at = data["access_token"], _expiry(data, now)
    except (ValueError, TypeError, KeyError):
        raise TokenError(f"{what} answered without a token and its lifetime") from None
    if not isinstance(found, str) or not _PRINTABLE.fullmatch(found):
        raise TokenError(f"{what} answered with a token that is no word of ASCII")
    return BearerToken(found, expires_at)


def _expiry(data: Any, now: float) -> float:
    """Azure sends numbers as text, and from App Service only the point in time."""
    if (seconds := data.get("expires_in")) is not None:
        return now + float(seconds)
    return float(data["expires_on"])


def known_code(text: str) -> str:
    """The error codes in a text that are known to be such; the rest may quote a secret."""
    codes = [code for code in _CODES if code in text]
    codes += dict.fromkeys(_MICROSOFT_CODE.findall(text))
    return " ".join(codes[:3])
