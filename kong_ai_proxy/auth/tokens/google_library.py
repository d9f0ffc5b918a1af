"""Tokens by means of google-auth, which signs for service accounts and knows workload identity
federation. Imported only where it is needed; everything here blocks."""

# mypy: allow-untyped-calls

from __future__ import annotations

import asyncio
import calendar
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.auth import (
    aws,
    exceptions,
    external_account_authorized_user,
    identity_pool,
    impersonated_credentials,
    pluggable,
    transport,
)
from google.oauth2 import credentials as user
from google.oauth2 import service_account
from typing_extensions import override

from kong_ai_proxy.auth.identity import BearerToken
from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.http import TOTAL_SECONDS, Answer, Http
from kong_ai_proxy.auth.tokens.oauth import known_code

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

Info = dict[str, Any]


class Unreachable(exceptions.TransportError):
    """A request got no answer. The text is ours."""


class Transport(transport.Request):
    """google-auth's way to send requests: over the event loop, from a thread beside it."""

    def __init__(self, http: Http, loop: asyncio.AbstractEventLoop) -> None:
        self._http = http
        self._loop = loop

    @override
    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Answer:
        """The answer. Raises Unreachable."""
        if more.get("cert") is not None:
            raise Unreachable("client certificates are not supported")
        data = body.encode() if isinstance(body, str) else body
        sending = self._http.send(method, url, dict(headers or {}), data)
        answer = asyncio.run_coroutine_threadsafe(sending, self._loop)
        try:
            return answer.result(TOTAL_SECONDS + 1)
        except TokenError as error:
            raise Unreachable(str(error)) from None
        except TimeoutError:
            raise Unreachable("no answer in time") from None


def token(
    name: str, info: Info, scopes: Sequence[str], token_url: str | None, request: Transport
) -> BearerToken:
    """A token for credentials of any kind that Google knows. `name` says in errors where they are
    from. Raises TokenError."""
    kind = str(info.get("type"))
    load = _KINDS.get(kind)
    if load is None:
        raise TokenError(f'{name}: expected "type" to be one of {", ".join(_KINDS)}')
    try:
        found = load(info, scopes)
        if token_url and isinstance(found, service_account.Credentials):
            found = found.with_token_uri(token_url)
        found.refresh(request)
    except Unreachable as error:
        raise TokenError(f"{name}: {error}") from None
    except exceptions.RefreshError as error:
        code = known_code(str(error))
        raise TokenError(f"{name}: Google refused it{code and ' with '}{code}") from None
    except Exception as error:  # texts of google-auth can quote what it was given
        raise TokenError(f"{name}: not usable: {type(error).__name__}") from None
    end = found.expiry
    return BearerToken(str(found.token), calendar.timegm(end.timetuple()) if end else None)


def _service_account(info: Info, scopes: Sequence[str]) -> Any:
    info = {"token_uri": TOKEN_URL, **info}
    return service_account.Credentials.from_service_account_info(info, scopes=scopes)


def _external_account(info: Info, scopes: Sequence[str]) -> Any:
    source = info.get("credential_source") or {}
    if str(info.get("subject_token_type", "")).endswith(":aws4_request"):
        return aws.Credentials.from_info(info, scopes=scopes)
    if isinstance(source, dict) and source.get("executable") is not None:
        return pluggable.Credentials.from_info(info, scopes=scopes)
    return identity_pool.Credentials.from_info(info, scopes=scopes)


def _user(info: Info, scopes: Sequence[str]) -> Any:
    return user.Credentials.from_authorized_user_info(info, scopes=scopes)


def _external_user(info: Info, scopes: Sequence[str]) -> Any:
    return external_account_authorized_user.Credentials.from_info(info, scopes=scopes)


def _impersonated(info: Info, scopes: Sequence[str]) -> Any:
    return impersonated_credentials.Credentials.from_impersonated_service_account_info(
        info, scopes=scopes
    )


_KINDS: Mapping[str, Callable[[Info, Sequence[str]], Any]] = {
    "service_account": _service_account,
    "external_account": _external_account,
    "authorized_user": _user,
    "external_account_authorized_user": _external_user,
    "impersonated_service_account": _impersonated,
}
