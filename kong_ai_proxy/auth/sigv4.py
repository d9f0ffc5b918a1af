"""AWS Signature Version 4.

Pure: a request, credentials and a point in time go in, the headers to set come out. The algorithm
is that of https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from typing_extensions import override

ALGORITHM = "AWS4-HMAC-SHA256"

# What is between us and AWS may change these, or add them.
_NOT_SIGNED = frozenset(
    {
        "authorization",
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)


class AwsCredentials(NamedTuple):
    """Keys of an AWS user or role. Its text shows none of them."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expires_at: float | None = None
    """Seconds since 1970; None for keys that do not expire."""

    @override
    def __repr__(self) -> str:
        return f"AwsCredentials(expires_at={self.expires_at})"


def sign(
    *,
    method: str,
    host: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: AwsCredentials,
    region: str,
    service: str,
    now: float,
) -> dict[str, str]:
    """The headers to set, names in lower case, so that AWS accepts the request.

    `host` is the header Host as it will be sent, with a port that is not the scheme's own; `path`
    and `query` are percent-encoded, as on the wire. Every header in `headers` must be sent as it
    is, but for those that are never signed. A header x-amz-content-sha256 among them stands for
    the hash of the body. `now` is in seconds since 1970; AWS allows five minutes of difference.
    """
    given = {name.lower(): value for name, value in headers.items()}
    payload = given.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
    timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": timestamp}
    if credentials.session_token:
        added["x-amz-security-token"] = credentials.session_token
    if service == "s3":  # it alone demands the header; elsewhere AWS hashes the body itself
        added["x-amz-content-sha256"] = payload
    signed = _signed({**given, "host": host, **added})
    names = ";".join(name for name, _ in signed)
    canonical = "\n".join(
        (
            method.upper(),
            path if service == "s3" else _canonical_path(path),
            _canonical_query(query),
            *(f"{name}:{value}" for name, value in signed),
            "",
            names,
            payload,
        )
    )
    scope = _scope(timestamp, region, service)
    signature = _signature(canonical, timestamp, scope, credentials)
    added["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return added


def presigned_query(
    *,
    host: str,
    query: Mapping[str, str],
    seconds: int,
    credentials: AwsCredentials,
    region: str,
    service: str,
    now: float,
) -> str:
    """The query, percent-encoded, with which `GET /` at the host is accepted for some seconds
    without further headers: `query` and the signature.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = _scope(timestamp, region, service)
    fields = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        fields["X-Amz-Security-Token"] = credentials.session_token
    pairs = sorted((_quoted(name), _quoted(value)) for name, value in fields.items())
    text = "&".join(f"{name}={value}" for name, value in pairs)
    empty = hashlib.sha256(b"").hexdigest()
    canonical = "\n".join(("GET", "/", text, f"host:{host}", "", "host", empty))
    return f"{text}&X-Amz-Signature={_signature(canonical, timestamp, scope, credentials)}"


def _scope(timestamp: str, region: str, service: str) -> str:
    return f"{timestamp[:8]}/{region}/{service}/aws4_request"


def _signature(canonical: str, timestamp: str, scope: str, credentials: AwsCredentials) -> str:
    date, region, service, _ = scope.split("/")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _signing_key(credentials.secret_access_key, date, region, service)
    return _hmac(key, f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}").hex()


def _signed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and values that are signed, by name; white space inside values made single."""
    return sorted(
        (name, " ".join(value.split()))
        for name, value in headers.items()
        if name not in _NOT_SIGNED
    )


def _canonical_path(path: str) -> str:
    """The path without dot segments and repeated slashes, percent-encoded once more than on the
    wire, as every service but S3 wants it."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return quote(f"/{'/'.join(kept)}{end}", safe="/~")


def _canonical_query(query: str) -> str:
    """The parameters by name, then by value, each with its "=", encoded as AWS encodes what it has
    read: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    if not query:
        return ""
    parts = (part.partition("=")[::2] for part in query.split("&"))
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in parts)
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe="-_.~")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


@lru_cache(maxsize=128)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of one day, region and service: four of the five HMACs of a signature."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")
