"""As whom a cloud is called, when not with a key that the configuration holds ready.

Pure and frozen: identities are what the configuration says, compare by value and can be keys of a
cache; `auth.tokens` gets the credentials for them. The text of an identity shows no secret.
"""

from __future__ import annotations

import importlib.util
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import orjson
from typing_extensions import override

from kong_ai_proxy.auth.sign import AuthError
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.config import Auth
from kong_ai_proxy.config.records import Bedrock

SESSION_NAME = "kong-ai-proxy"
"""Of an assumed role, where the configuration gives none."""

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")


class BearerToken(NamedTuple):
    """A token for the header `Authorization: Bearer`. Its text does not show it."""

    token: str
    expires_at: float | None = None
    """Seconds since 1970; None where that is not known, or never."""

    @override
    def __repr__(self) -> str:
        return f"BearerToken(expires_at={self.expires_at})"


Credential = AwsCredentials | BearerToken


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """An AWS user or role: of the keys that are given, or else of the environment."""

    region: str
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    role_arn: str | None = None
    """The role that is assumed on top."""
    role_session_name: str = SESSION_NAME
    sts_endpoint_url: str | None = None

    def base(self) -> AwsIdentity:
        """Who assumes the role."""
        return replace(self, role_arn=None, role_session_name=SESSION_NAME, sts_endpoint_url=None)


@dataclass(frozen=True, slots=True)
class GoogleIdentity:
    """A Google service account: of the key that is given, or else of the environment."""

    service_account_json: str | None = field(default=None, repr=False)
    oauth_token_url: str | None = None
    metadata_url: str | None = None


@dataclass(frozen=True, slots=True)
class AzureIdentity:
    """A managed identity: the machine's, or the user-assigned one of `client_id`; or with
    `client_secret` and `tenant_id` an app registration."""

    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    tenant_id: str | None = None
    resource: str | None = None
    """What the token is for, such as https://redis.azure.com; None for Azure's AI services."""


@dataclass(frozen=True, slots=True)
class BearerKey:
    """A key that the environment holds ready."""

    key: str = field(repr=False)


Identity = AwsIdentity | GoogleIdentity | AzureIdentity | BearerKey


class Options(Protocol):
    """Options of a model that answers, or of one that makes embeddings."""

    @property
    def bedrock(self) -> Bedrock:
        """Where and as whom AWS Bedrock is called."""


def identity(
    provider: str, auth: Auth, options: Options, environ: Mapping[str, str]
) -> Identity | None:
    """As whom the provider is called; None where `sign.static` says it all.

    Placeholders in `options` are expanded before. Raises AuthError.
    """
    if provider == "bedrock":
        return _bedrock(auth, options.bedrock, environ)
    if provider == "gemini" and auth.gcp_use_service_account:
        return google(
            auth.gcp_service_account_json, auth.gcp_oauth_token_url, auth.gcp_metadata_url
        )
    if provider == "azure" and auth.azure_use_managed_identity:
        return azure(auth.azure_client_id, auth.azure_client_secret, auth.azure_tenant_id)
    return None


def _bedrock(auth: Auth, bedrock: Bedrock, environ: Mapping[str, str]) -> Identity | None:
    """A Bedrock API key is one header, configured or from the environment:
    https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html"""
    if auth.header_name and auth.header_name.lower() == "authorization":
        return None
    configured = auth.aws_access_key_id or auth.aws_secret_access_key or bedrock.aws_assume_role_arn
    key = environ.get("AWS_BEARER_TOKEN_BEDROCK", "").strip()
    if key and not configured:
        if not _TOKEN.fullmatch(key):
            raise AuthError("AWS_BEARER_TOKEN_BEDROCK: expected one word of ASCII")
        return BearerKey(key)
    return aws(
        region(bedrock.aws_region, environ),
        auth.aws_access_key_id,
        auth.aws_secret_access_key,
        bedrock.aws_assume_role_arn,
        bedrock.aws_role_session_name,
        bedrock.aws_sts_endpoint_url,
    )


def region(configured: str | None, environ: Mapping[str, str]) -> str:
    """The AWS region: as configured, or else of the environment. Raises AuthError.

    It becomes part of host names, so nothing but a region passes.
    """
    names = ("AWS_REGION", "AWS_DEFAULT_REGION")
    found = [("model.options.bedrock.aws_region", configured)]
    found += [(name, environ.get(name)) for name in names]
    for name, value in found:
        if value and not (len(value) <= 32 and _REGION.fullmatch(value)):
            raise AuthError(f"{name}: expected an AWS region such as us-east-1")
        if value:
            return value
    raise AuthError(
        "model.options.bedrock.aws_region: expected an AWS region such as us-east-1, "
        "here or in the variable AWS_REGION"
    )


def aws(
    region: str,
    access_key_id: str | None,
    secret_access_key: str | None,
    role_arn: str | None = None,
    role_session_name: str | None = None,
    sts_endpoint_url: str | None = None,
) -> AwsIdentity:
    """An AWS identity. Raises AuthError."""
    if bool(access_key_id) != bool(secret_access_key):
        raise AuthError("auth.aws_access_key_id and auth.aws_secret_access_key: expected both")
    if role_session_name and not _SESSION_NAME.fullmatch(role_session_name):
        raise AuthError(
            "model.options.bedrock.aws_role_session_name: "
            "expected 2 to 64 letters, digits and _+=,.@-"
        )
    keys = AwsIdentity(region, _stripped(access_key_id), _stripped(secret_access_key))
    if not role_arn:
        return keys
    return replace(
        keys,
        role_arn=role_arn,
        role_session_name=role_session_name or SESSION_NAME,
        sts_endpoint_url=_url("model.options.bedrock.aws_sts_endpoint_url", sts_endpoint_url),
    )


def google(
    service_account_json: str | None, oauth_token_url: str | None, metadata_url: str | None
) -> GoogleIdentity:
    """A Google identity. Raises AuthError.

    Only keys of service accounts pass: with other kinds of credentials, who may write a plugin's
    configuration could have files of this machine sent anywhere.
    """
    if service_account_json:
        service_account("auth.gcp_service_account_json", service_account_json)
    return GoogleIdentity(
        _stripped(service_account_json),
        _url("auth.gcp_oauth_token_url", oauth_token_url),
        _url("auth.gcp_metadata_url", metadata_url),
    )


def service_account(name: str, text: str) -> dict[str, Any]:
    """The key of a service account. Raises AuthError, naming the place it is from."""
    try:
        info = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise AuthError(f"{name}: expected the JSON text of a service account's key") from None
    if not isinstance(info, dict) or info.get("type") != "service_account":
        raise AuthError(f'{name}: expected a key with "type": "service_account"')
    for member in ("client_email", "private_key"):
        if not isinstance(info.get(member), str):
            raise AuthError(f"{name}: the service account's key has no {member}")
    return info


def azure(client_id: str | None, client_secret: str | None, tenant_id: str | None) -> AzureIdentity:
    """An Azure identity. Raises AuthError."""
    if client_secret and not (client_id and tenant_id):
        raise AuthError(
            "auth.azure_client_secret: expected auth.azure_client_id and auth.azure_tenant_id too"
        )
    return AzureIdentity(_stripped(client_id), _stripped(client_secret), _stripped(tenant_id))


def missing_extra(identity: Identity, environ: Mapping[str, str]) -> str | None:
    """What to install before credentials can be had for this identity; None where nothing is
    missing. Looks for modules, imports none."""
    if isinstance(identity, AwsIdentity):
        needed = key_pair(identity, environ) is None
        return MISSING_BOTOCORE if needed and not _installed("botocore") else None
    if isinstance(identity, GoogleIdentity):
        names = ("GCP_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS")
        needed = bool(identity.service_account_json) or any(environ.get(name) for name in names)
        return MISSING_GOOGLE_AUTH if needed and not _installed("google.auth") else None
    return None


MISSING_BOTOCORE = (
    "model.provider bedrock with credentials from a profile, ECS, EKS or EC2 needs botocore: "
    "pip install 'kong-ai-proxy[aws]', or set auth.aws_access_key_id and "
    "auth.aws_secret_access_key"
)
MISSING_GOOGLE_AUTH = (
    "auth.gcp_use_service_account with a key or a credentials file needs google-auth: "
    "pip install 'kong-ai-proxy[gcp]'"
)


def key_pair(identity: AwsIdentity, environ: Mapping[str, str]) -> AwsCredentials | None:
    """The keys that are configured, or else those of the environment; None for neither."""
    if identity.access_key_id and identity.secret_access_key:
        return AwsCredentials(identity.access_key_id, identity.secret_access_key)
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return AwsCredentials(key, secret, environ.get("AWS_SESSION_TOKEN") or None)
    return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package it would be in
        return False


def _stripped(secret: str | None) -> str | None:
    """Secrets that are read from files end in a newline."""
    return secret.strip() if secret else None


def _url(name: str, value: str | None) -> str | None:
    if not value:
        return None
    try:
        parts = urllib.parse.urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None:
        raise AuthError(f"{name}: expected a URL such as https://host/path, without a user")
    return value
