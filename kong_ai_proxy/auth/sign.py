"""Credentials of a request: which header, query parameter or body field carries them.

Pure: what the configuration and the request say goes in, what to set comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from kong_ai_proxy.config import Auth


class AuthError(ValueError):
    """The configured credential cannot be sent. The text names the field, never the value."""


class Credentials(NamedTuple):
    """What to set so that the provider accepts the request."""

    headers: Mapping[str, str] = MappingProxyType({})
    query: Mapping[str, str] = MappingProxyType({})
    body: Mapping[str, str] = MappingProxyType({})


def is_configured(auth: Auth) -> bool:
    """Whether the configuration brings a credential at all."""
    return bool(auth.header_name or auth.param_name)


def static(
    auth: Auth,
    client_headers: Collection[str],
    client_query: Collection[str],
    client_body: Collection[str],
) -> Credentials:
    """The configured header and parameter, where the client's own does not win.

    With `allow_override` a credential of the same name that the client sent is kept. The last
    three arguments are the names the client sent (headers in lower case). Raises AuthError.
    """
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    body: dict[str, str] = {}
    if auth.header_name and not (
        auth.allow_override and auth.header_name.lower() in client_headers
    ):
        headers[auth.header_name.lower()] = _header_value(auth.header_value or "")
    if auth.param_name:
        sent, place = (
            (client_query, query) if auth.param_location == "query" else (client_body, body)
        )
        if not (auth.allow_override and auth.param_name in sent):
            place[auth.param_name] = _expanded("auth.param_value", auth.param_value or "")
    return Credentials(headers, query, body)


def _header_value(value: str) -> str:
    """The value without surrounding white space: secrets read from files end in a newline."""
    stripped = _expanded("auth.header_value", value.strip())
    if any(character in stripped for character in "\r\n\0"):
        raise AuthError("auth.header_value: expected one line of text")
    return stripped


def _expanded(field: str, value: str) -> str:
    if "${{" in value:
        raise AuthError(
            f"{field} holds an unexpanded ${{{{ env }}}}: decK fills that in, Kong does not; "
            "use a vault reference such as {vault://env/name} where Kong reads the file itself"
        )
    return value
