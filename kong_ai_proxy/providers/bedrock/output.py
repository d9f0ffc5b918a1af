"""Where Bedrock writes what asynchronous invocations make: objects in S3, which are addressed as
https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html says.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.providers.bedrock.paths import host
from kong_ai_proxy.providers.flow import ProviderFailed, Wanted

SERVICE = "s3"
"""That a signature is for."""

# As Bedrock takes it: S3Uri in botocore's service model of bedrock-runtime.
_URI = re.compile(r"s3://([a-z0-9][.a-z0-9-]{1,61}[a-z0-9])(?:/([\x20-\x7e]{0,900}))?")


class Place(NamedTuple):
    """An object, or a folder."""

    bucket: str
    key: str
    """Without a slash at either end; "" for the bucket itself."""

    @property
    def uri(self) -> str:
        """Such as s3://bucket/folder."""
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def holds(self, other: Place) -> bool:
        """Whether `other` is this place or below it."""
        below = not self.key or f"{other.key}/".startswith(f"{self.key}/")
        return self.bucket == other.bucket and below


def place(uri: str) -> Place | None:
    """The place of an address s3://...; None where it is none."""
    found = _URI.fullmatch(uri)
    if not found:
        return None
    key = (found[2] or "").strip("/")
    return Place(found[1], key) if not _has_dots(key) else None


def _has_dots(key: str) -> bool:
    """What would be another path to some HTTP client."""
    return any(part in (".", "..") for part in key.split("/"))


def check_signs(wanted: Wanted) -> None:
    """Raise ProviderFailed (500) where S3 would refuse what the operator configured. What is behind
    an `upstream_url` may take any credential."""
    if wanted.signs or wanted.options.upstream_url:
        return
    text = (
        "an API key of Bedrock's (the header Authorization, or AWS_BEARER_TOKEN_BEDROCK) opens no "
        "bucket in S3, where files and videos are: set auth.aws_access_key_id and "
        "auth.aws_secret_access_key, or give the gateway a role of AWS"
    )
    raise ProviderFailed(ProviderError(text, status=500))


def base_url(bucket: str, options: ModelOptions) -> str:
    """Where the bucket's objects are, for Send; "" behind an `upstream_url`. A name with dots has
    no certificate as a host."""
    if options.upstream_url:
        return ""
    return host(SERVICE if "." in bucket else f"{bucket}.{SERVICE}", options)


def path(where: Place, options: ModelOptions) -> str:
    """The path there, percent-encoded."""
    key = quote(where.key, safe="/~")
    named = options.upstream_url or "." in where.bucket
    return f"/{where.bucket}/{key}" if named else f"/{key}"
