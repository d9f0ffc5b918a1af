"""Who logs in to Redis: a user of the configuration, or a cloud's own identity.

https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html
https://learn.microsoft.com/azure/redis/entra-for-authentication
https://cloud.google.com/memorystore/docs/cluster/about-iam-auth

Clouds look at a token when a connection is made; where they end a connection with its token (Azure
after about an hour, AWS after twelve), the next query makes a new one with a new token.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import orjson
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError
from typing_extensions import override

from kong_ai_proxy.auth import sigv4
from kong_ai_proxy.auth.identity import (
    AwsIdentity,
    AzureIdentity,
    BearerToken,
    GoogleIdentity,
    Identity,
    aws,
    google,
)
from kong_ai_proxy.auth.sign import AuthError
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.config.vectors import CloudAuthentication, Redis
from kong_ai_proxy.vectors.store import StoreError

FIELD = "config.vectordb.redis.cloud_authentication"
AZURE_RESOURCE = "https://redis.azure.com"
AWS_SECONDS = 900
"""How long ElastiCache accepts a token; more is refused."""


class LoginError(RedisError):
    """No credentials. Its text has no secret. One of redis-py's errors, so that its connection is
    closed and not kept half logged in."""


class CloudLogin(CredentialProvider):
    """Gives redis-py what it sends with AUTH, for each connection anew."""

    def __init__(self, config: Redis, tokens: Tokens, now: Callable[[], float] = time.time) -> None:
        """Raises StoreError for a configuration without what the cloud needs."""
        self._cloud = config.cloud_authentication
        self._username = config.username
        self._tokens = tokens
        self._now = now
        self._identity = _identity(config)

    @override
    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The token, or the user and the token. Raises LoginError."""
        try:
            credential = await self._tokens.get(self._identity)
        except TokenError as error:
            raise LoginError(f"{FIELD}: {error}") from None
        if isinstance(credential, AwsCredentials):
            return self._username or "", self._presigned(credential)
        if isinstance(self._identity, AzureIdentity):
            return self._username or _object_id(credential), credential.token
        if self._username:
            return self._username, credential.token
        return (credential.token,)

    def _presigned(self, credentials: AwsCredentials) -> str:
        host = (self._cloud.aws_cache_name or "").lower()
        query = {"Action": "connect", "User": self._username or ""}
        if self._cloud.aws_is_serverless:
            query["ResourceType"] = "ServerlessCache"
        signed = sigv4.presigned_query(
            host=host,
            query=query,
            seconds=AWS_SECONDS,
            credentials=credentials,
            region=self._cloud.aws_region or "",
            service="elasticache",
            now=self._now(),
        )
        return f"{host}/?{signed}"


def login(config: Redis, tokens: Tokens | None) -> CredentialProvider | None:
    """Who logs in with a cloud's identity; None for a user and a password, or nobody."""
    if config.cloud_authentication.auth_provider is None:
        return None
    if tokens is None:
        raise StoreError(f"{FIELD}: cannot be used here, for want of a source of tokens")
    return CloudLogin(config, tokens)


def _identity(config: Redis) -> Identity:
    cloud = config.cloud_authentication
    try:
        if cloud.auth_provider == "aws":
            return _aws(cloud, config.username)
        if cloud.auth_provider == "azure":
            return _azure(cloud)
        if cloud.auth_provider == "gcp":
            return _google(cloud)
    except AuthError as error:
        # Its texts speak of an upstream's fields: `auth.` and `model.options.bedrock.`
        text = str(error).replace("model.options.bedrock.", "").replace("auth.", "")
        raise StoreError(f"{FIELD}: {text}") from None
    raise StoreError(f"{FIELD}.auth_provider: expected aws, azure or gcp")


def _aws(cloud: CloudAuthentication, username: str | None) -> AwsIdentity:
    if not username:
        raise StoreError("config.vectordb.redis.username: ElastiCache wants the user's id")
    return aws(
        cloud.aws_region or "",
        cloud.aws_access_key_id,
        cloud.aws_secret_access_key,
        cloud.aws_assume_role_arn,
        cloud.aws_role_session_name,
    )


def _azure(cloud: CloudAuthentication) -> AzureIdentity:
    client, secret, tenant = cloud.azure_client_id, cloud.azure_client_secret, cloud.azure_tenant_id
    if secret and not (client and tenant):
        raise StoreError(
            f"{FIELD}.azure_client_secret: expected azure_client_id and azure_tenant_id too"
        )
    return AzureIdentity(
        client and client.strip(),
        secret and secret.strip(),
        tenant and tenant.strip(),
        AZURE_RESOURCE,
    )


def _google(cloud: CloudAuthentication) -> GoogleIdentity:
    return google(cloud.gcp_service_account_json, None, None)


def _object_id(token: BearerToken) -> str:
    """The user that Azure expects where none is configured: the identity's object id, which is in
    the token. Raises LoginError."""
    try:
        claims = token.token.split(".")[1]
        found = orjson.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["oid"]
    except (IndexError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise LoginError(
            "config.vectordb.redis.username: expected the object id of the Azure identity, "
            "since its token does not tell"
        )
    return found
