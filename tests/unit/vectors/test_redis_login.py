"""As whom Redis of a cloud is used."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from botocore import auth as botocore_auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from typing_extensions import override

from kong_ai_proxy.auth.identity import (
    AwsIdentity,
    AzureIdentity,
    BearerToken,
    Credential,
    GoogleIdentity,
    Identity,
)
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.config.vectors import Redis
from kong_ai_proxy.vectors.redis_login import CloudLogin, LoginError, login
from kong_ai_proxy.vectors.store import StoreError

NOW = 1_700_000_000.0
AWS = {"auth_provider": "aws", "aws_cache_name": "My-Cache", "aws_region": "eu-west-1"}
KEYS = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


class Source(Tokens):
    """Gives one credential to whoever asks."""

    def __init__(self, given: Credential | TokenError) -> None:
        super().__init__({})
        self.given = given
        self.asked: list[Identity] = []

    @override
    async def get(self, identity: Identity) -> Credential:
        self.asked.append(identity)
        if isinstance(self.given, TokenError):
            raise self.given
        return self.given


def redis(cloud: dict[str, Any], **fields: Any) -> Redis:
    return Redis.model_validate({"cloud_authentication": cloud, **fields})


async def sent(config: Redis, source: Source) -> tuple[str, ...]:
    return await CloudLogin(config, source, now=lambda: NOW).get_credentials_async()


def by_botocore(keys: AwsCredentials, url: str) -> str:
    """The address that botocore presigns at NOW, without its scheme."""
    request = AWSRequest("GET", url)
    moment = datetime.fromtimestamp(NOW, UTC)
    with mock.patch.object(botocore_auth, "get_current_datetime", return_value=moment):
        signer = botocore_auth.SigV4QueryAuth(
            Credentials(*keys[:3]), "elasticache", "eu-west-1", expires=900
        )
        signer.add_auth(request)
    return str(request.url).removeprefix("http://")


@pytest.mark.parametrize("keys", [KEYS, KEYS._replace(session_token="IQoJ//+b3==/token")])
@pytest.mark.parametrize("is_serverless", [True, False])
async def test_elasticache_gets_the_request_that_botocore_signs(
    keys: AwsCredentials, is_serverless: bool
) -> None:
    config = redis({**AWS, "aws_is_serverless": is_serverless}, username="kong user")
    source = Source(keys)
    user, token = await sent(config, source)
    url = "http://my-cache/?Action=connect&User=kong%20user"
    expected = by_botocore(keys, url + "&ResourceType=ServerlessCache" * is_serverless)
    ours, theirs = (urlsplit(f"http://{text}") for text in (token, expected))
    assert user == "kong user"
    assert token.startswith("my-cache/?")
    assert parse_qs(ours.query) == parse_qs(theirs.query)
    assert source.asked == [AwsIdentity("eu-west-1")]


async def test_elasticache_with_configured_keys_and_a_role() -> None:
    given = {"aws_access_key_id": "id", "aws_secret_access_key": "secret"}
    role = {"aws_assume_role_arn": "arn:role", "aws_role_session_name": "session"}
    source = Source(KEYS)
    await sent(redis({**AWS, **given, **role}, username="kong"), source)
    assert source.asked == [AwsIdentity("eu-west-1", "id", "secret", "arn:role", "session")]


def jwt(claims: dict[str, Any]) -> str:
    middle = base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=")
    return f"e30.{middle}.c2lnbmF0dXJl"


async def test_azures_user_is_the_object_id_in_the_token() -> None:
    token = jwt({"oid": "0b1e-ü", "sub": "other"})
    source = Source(BearerToken(token))
    assert await sent(redis({"auth_provider": "azure"}), source) == ("0b1e-ü", token)
    assert source.asked == [AzureIdentity(resource="https://redis.azure.com")]


async def test_azures_user_may_be_configured() -> None:
    source = Source(BearerToken("opaque"))
    config = redis({"auth_provider": "azure"}, username="object")
    assert await sent(config, source) == ("object", "opaque")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.!!.c", jwt({}), jwt({"oid": 1})])
async def test_an_azure_token_without_a_user_is_told(token: str) -> None:
    with pytest.raises(LoginError, match=r"redis\.username: expected the object id") as caught:
        await sent(redis({"auth_provider": "azure"}), Source(BearerToken(token)))
    assert token not in str(caught.value)


async def test_memorystore_gets_the_token() -> None:
    source = Source(BearerToken("ya29"))
    assert await sent(redis({"auth_provider": "gcp"}), source) == ("ya29",)
    assert await sent(redis({"auth_provider": "gcp"}, username="me"), source) == ("me", "ya29")
    assert source.asked[0] == GoogleIdentity()


async def test_no_credentials_name_the_field() -> None:
    source = Source(TokenError("Microsoft Entra answered 401"))
    with pytest.raises(LoginError, match=r"redis\.cloud_authentication: Microsoft Entra .* 401"):
        await sent(redis({"auth_provider": "azure"}), source)


@pytest.mark.parametrize(
    ("cloud", "text"),
    [
        (AWS, r"redis\.username: ElastiCache wants"),
        (
            {"auth_provider": "azure", "azure_client_secret": "s3cret"},
            r"cloud_authentication\.azure_client_secret: expected azure_client_id",
        ),
        (
            {"auth_provider": "gcp", "gcp_service_account_json": "{"},
            r"cloud_authentication: gcp_service_account_json: expected the JSON text",
        ),
    ],
)
def test_what_is_missing_is_told(cloud: dict[str, Any], text: str) -> None:
    with pytest.raises(StoreError, match=text) as caught:
        login(redis(cloud), Source(KEYS))
    assert "s3cret" not in str(caught.value)


def test_half_of_a_key_pair_is_told() -> None:
    config = redis({**AWS, "aws_access_key_id": "id"}, username="kong")
    with pytest.raises(StoreError, match=r"aws_access_key_id and aws_secret_access_key: expected"):
        login(config, Source(KEYS))


def test_a_source_of_tokens_is_needed() -> None:
    with pytest.raises(StoreError, match="source of tokens"):
        login(redis({"auth_provider": "gcp"}), None)


def test_without_a_cloud_nobody_is_asked() -> None:
    assert login(Redis.model_validate({}), None) is None
