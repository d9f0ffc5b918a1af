"""What of the client's request the provider need not see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode

from kong_ai_proxy.exchange.messages import ResponseHead
from kong_ai_proxy.formats.errors import ProviderError

# Kong's and the connection's own, and what makes some servers see another request than the one
# that was checked. Hop-by-hop headers are left to Kong.
_INTERNAL_PREFIXES = ("x-consumer-", "x-credential-", "x-kong-", "x-forwarded-")
_INTERNAL = frozenset(
    {
        "forwarded",
        "kong-debug",
        "proxy-authorization",
        "proxy-connection",
        "x-anonymous-consumer",
        "x-authenticated-groups",
        "x-authenticated-scope",
        "x-authenticated-userid",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-real-ip",
        "x-rewrite-url",
    }
)

# With "_" some servers take these for the real ones, and see another request than we do.
_FRAMING = frozenset({"content-length", "transfer-encoding"})

CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "api-key",
        "anthropic-api-key",
        "api-token",
        "apikey",
        "cookie",
        "cookie2",
        "ocp-apim-subscription-key",
        "private-token",
        "subscription-key",
        "x-access-token",
        "x-amz-security-token",
        "x-api-key",
        "x-authorization",
        "x-auth-token",
        "x-goog-api-key",
        "x-goog-iam-authority-selector",
        "x-goog-iam-authorization-token",
        "x-goog-iap-jwt-assertion",
        "x-goog-user-project",
        "x-serverless-authorization",
        "x-id-token",
        "x-userinfo",
    }
)
"""Where clients put the key that they show to the gateway, or to a provider of their own."""

CREDENTIAL_QUERY = frozenset(
    {
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "client_secret",
        "ephemeral_key",
        "authorization",
        "jwt",
        "key",
        "oauth_token",
        "subscription-key",
        "token",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-api-key",
        "x-goog-api-key",
    }
)
"""The same in the query."""


def dropped_headers(
    sent: Iterable[str], *, credentials: bool, kept: Collection[str], replaced: Collection[str]
) -> frozenset[str]:
    """Which of the `sent` lower-case header names do not go to the provider.

    `credentials`: the client's credentials are dropped too, but for the names in `kept`. Other
    spellings of the `replaced` ones are dropped, because servers that hand headers on as CGI does
    (RFC 3875 section 4.1.18) take `x_api_key` for `x-api-key`.
    """
    names = tuple(sent)
    find = _dropped if len(names) <= _FEW else _dropped.__wrapped__
    return find(names, credentials, frozenset(kept), frozenset(replaced))


_FEW = 64  # header names of one request that are worth remembering


@lru_cache(maxsize=1024)  # a client sends the same names again and again
def _dropped(
    sent: tuple[str, ...], credentials: bool, kept: frozenset[str], replaced: frozenset[str]
) -> frozenset[str]:
    unwanted = _INTERNAL | CREDENTIAL_HEADERS if credentials else _INTERNAL
    own = {_dashed(name) for name in replaced}
    return frozenset(
        name
        for name in sent
        if _dashed(name).startswith(_INTERNAL_PREFIXES)
        or ("_" in name and _dashed(name) in _FRAMING)
        or (_dashed(name) in unwanted and name not in kept)
        or (_dashed(name) in own and name not in replaced)
    )


# The connection's own (RFC 9110 section 7.6.1), what nginx takes as an order, what would speak for
# Kong, and cookies: the provider's session with whoever asks must not become the client's.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_ANSWER_PREFIXES = ("x-kong-", "x-accel-")


_CONDITIONS = frozenset(
    {"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"}
)
"""Of an answer that is made anew they mean nothing."""
_NATIVE_PREFIXES = ("amz-sdk-", "anthropic-", "openai-", "x-amz-", "x-goog-", "x-stainless-")


def native_headers(sent: Iterable[str]) -> frozenset[str]:
    """Which of the `sent` lower-case header names are words of one provider's own format, and mean
    nothing, or something else, to another one. A client's AWS signature is among them."""
    return frozenset(
        name for name in sent if name in _CONDITIONS or _dashed(name).startswith(_NATIVE_PREFIXES)
    )


REDACTED = "[redacted]"
"""In place of the operator's keys, which providers quote in what they answer."""


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without any of the operator's keys."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    return text


def masked_error(error: ProviderError, secrets: Collection[str]) -> ProviderError:
    """The error without the operator's keys, which providers quote."""
    texts = (error.message, error.type, error.code or "", error.param or "")
    if not any(secret in text for secret in secrets for text in texts):
        return error
    return error._replace(
        message=masked(error.message, secrets),
        type=masked(error.type, secrets),
        code=masked(error.code, secrets) if error.code else None,
        param=masked(error.param, secrets) if error.param else None,
    )


def masked_head(head: ResponseHead, secrets: Collection[str]) -> ResponseHead:
    """The provider's answer without any of them in its headers."""
    if not any(secret in value for secret in secrets for _, value in head.headers):
        return head
    return head._replace(headers=tuple((name, masked(v, secrets)) for name, v in head.headers))


def stays_behind(name: str) -> bool:
    """Whether this lower-case header of a provider's answer does not go to the client."""
    plain = _dashed(name)
    return plain in _HOP_BY_HOP or plain == "set-cookie" or plain.startswith(_ANSWER_PREFIXES)


def is_hop_by_hop(name: str) -> bool:
    """Whether this lower-case header is for one connection only."""
    return name in _HOP_BY_HOP


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def query_values(raw: str) -> dict[str, str]:
    """The parameters of a raw query by their exact names; of several the last that has a value."""
    if not raw:
        return {}
    pairs = parse_qsl(raw, keep_blank_values=True, errors="surrogateescape")
    return dict(sorted(pairs, key=lambda pair: bool(pair[1])))


def without(raw: str, names: Collection[str]) -> str:
    """The raw query without the parameters of these names; the rest byte for byte.

    Names are compared as a lenient server might read them: without regard to case, space around
    them, a trailing `[]`, and with ";" between parameters.
    """
    if not raw:
        return ""
    unwanted = {_lenient(name) for name in names}
    return "&".join(part for part in raw.split("&") if part and unwanted.isdisjoint(_names(part)))


def _names(part: str) -> set[str]:
    return {_lenient(_name(each)) for each in part.split(";")}


def _lenient(name: str) -> str:
    return name.strip(" \t\r\n\0").partition("[")[0].lower()


def _name(part: str) -> str:
    return unquote_plus(part.partition("=")[0], errors="surrogateescape")


def joined(raw: str, parameters: Mapping[str, str]) -> str:
    """The raw query with more parameters, encoded."""
    added = urlencode(parameters, quote_via=quote)
    return "&".join(part for part in (raw, added) if part)


_KEY_PROTOCOLS = ("openai-insecure-api-key.", "xai-client-secret.", "base64url.bearer.")


def subprotocols(offered: Iterable[str]) -> str:
    """The WebSocket subprotocols that go on: all but those that carry a client's OpenAI key."""
    listed = (each.strip() for value in offered for each in value.split(","))
    return ", ".join(each for each in listed if not each.lower().startswith(_KEY_PROTOCOLS))


def redacted(raw: str, secret: Collection[str], mark: str) -> str:
    """The raw query with the values of these parameters replaced by `mark`, however a lenient
    server might spell their names."""
    unwanted = {_lenient(name) for name in secret}
    parts = raw.split("&") if raw else []
    return "&".join(
        f"{part.partition('=')[0]}={mark}" if not unwanted.isdisjoint(_names(part)) else part
        for part in parts
    )


def names(raw: str) -> list[str]:
    """The names of a raw query's parameters as a lenient server might read them."""
    return [name for part in raw.split("&") if part for name in sorted(_names(part))]


def values(raw: str, name: str) -> list[str]:
    """The values of each parameter that a lenient server might take for `name`."""
    found = []
    for part in raw.split("&"):
        for each in part.split(";"):
            if _lenient(_name(each)) == name:
                found.append(unquote_plus(each.partition("=")[2], errors="surrogateescape"))
    return found


def is_credential(name: str) -> bool:
    """Whether a header, by its lower-case name, may carry a client's key."""
    return _dashed(name) in CREDENTIAL_HEADERS


def first_values(raw: str) -> dict[str, str]:
    """The parameters of a raw query, decoded; of several with one name the first.

    Raises ValueError for more than 1,000.
    """
    pairs = parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=1000)
    return dict(reversed(pairs))
