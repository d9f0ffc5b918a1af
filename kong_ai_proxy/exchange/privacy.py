"""What of the client's request the provider need not see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode

# Kong's and the connection's own. Kong and the relay handle the hop-by-hop ones themselves.
_INTERNAL_PREFIXES = ("x-consumer-", "x-credential-", "x-kong-", "x-forwarded-")
_INTERNAL = frozenset(
    {
        "forwarded",
        "proxy-authorization",
        "proxy-connection",
        "x-anonymous-consumer",
        "x-authenticated-groups",
        "x-authenticated-scope",
        "x-authenticated-userid",
        "x-real-ip",
    }
)

CREDENTIAL_HEADERS = frozenset(
    {"authorization", "api-key", "apikey", "cookie", "x-api-key", "x-goog-api-key"}
)
"""Where clients put the key that they show to the gateway, or to a provider of their own."""

CREDENTIAL_QUERY = frozenset({"api-key", "api_key", "apikey", "key", "x-api-key"})
"""The same in the query."""


def dropped_headers(sent: Iterable[str], *, credentials: bool, kept: Collection[str]) -> set[str]:
    """Which of the `sent` lower-case header names do not go to the provider.

    `credentials`: the client's credentials are dropped too, but for the names in `kept`.
    """
    return {
        name
        for name in sent
        if name in _INTERNAL
        or name.startswith(_INTERNAL_PREFIXES)
        or (credentials and name in CREDENTIAL_HEADERS and name not in kept)
    }


def query_names(raw: str) -> list[str]:
    """The names of the parameters in a raw query."""
    return [_name(part) for part in raw.split("&") if part]


def without(raw: str, names: Collection[str]) -> str:
    """The raw query without the parameters of these names; the rest byte for byte."""
    return "&".join(part for part in raw.split("&") if part and _name(part) not in names)


def _name(part: str) -> str:
    return unquote_plus(part.partition("=")[0], errors="surrogateescape")


def joined(raw: str, parameters: Mapping[str, str]) -> str:
    """The raw query with more parameters, encoded."""
    added = urlencode(parameters, quote_via=quote)
    return "&".join(part for part in (raw, added) if part)


def redacted(raw: str, secret: Collection[str], mark: str) -> str:
    """The raw query with the values of these parameters replaced by `mark`."""
    parts = raw.split("&") if raw else []
    return "&".join(f"{p.partition('=')[0]}={mark}" if _name(p) in secret else p for p in parts)


def first_values(raw: str) -> dict[str, str]:
    """The parameters of a raw query, decoded; of several with one name the first.

    Raises ValueError for more than 1,000.
    """
    pairs = parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=1000)
    return dict(reversed(pairs))
