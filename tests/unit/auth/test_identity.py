"""As whom a provider is called, from its configuration and the environment."""

from __future__ import annotations

import importlib.util
from typing import Any

import orjson
import pytest

from kong_ai_proxy.auth import identity as identities
from kong_ai_proxy.auth.identity import (
    AwsIdentity,
    AzureIdentity,
    BearerKey,
    BearerToken,
    GoogleIdentity,
    Identity,
    identity,
    missing_extra,
)
from kong_ai_proxy.auth.sign import AuthError
from kong_ai_proxy.config import Auth, ModelOptions
from kong_ai_proxy.config.vectors import EmbeddingsOptions

REGION = {"AWS_REGION": "us-east-1"}
PAIR = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret-key"}
KEY = orjson.dumps(
    {"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN secret-key"}
).decode()


def of(
    provider: str,
    auth: dict[str, Any] | None = None,
    bedrock: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
) -> Identity | None:
    options = ModelOptions.model_validate({"bedrock": bedrock or {}})
    return identity(provider, Auth.model_validate(auth or {}), options, environ or {})


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure", "gemini", "cohere"])
def test_a_static_key_is_no_identity(provider: str) -> None:
    assert of(provider, {"header_name": "api-key", "header_value": "k", **PAIR}) is None


def test_bedrock_is_called_with_aws_credentials() -> None:
    assert of("bedrock", PAIR, {"aws_region": "eu-west-1"}, REGION) == AwsIdentity(
        "eu-west-1", "AKID", "secret-key"
    )


def test_bedrock_with_a_bearer_key_in_the_configuration_has_no_identity() -> None:
    header = {"header_name": "authorization", "header_value": "Bearer k"}
    assert of("bedrock", header, environ={"AWS_BEARER_TOKEN_BEDROCK": "other"}) is None


def test_another_header_does_not_stand_for_aws_credentials() -> None:
    header = {"header_name": "x-tenant", "header_value": "1"}
    assert of("bedrock", header, environ=REGION) == AwsIdentity("us-east-1")


def test_the_environments_bearer_key_counts_when_nothing_else_is_configured() -> None:
    environ = {**REGION, "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key\n"}
    assert of("bedrock", environ=environ) == BearerKey("bedrock-key")
    assert isinstance(of("bedrock", PAIR, environ=environ), AwsIdentity)
    role = {"aws_assume_role_arn": "arn:aws:iam::1:role/r"}
    assert isinstance(of("bedrock", {}, role, environ), AwsIdentity)


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("eu-west-1", {"AWS_REGION": "a-1", "AWS_DEFAULT_REGION": "b-1"}, "eu-west-1"),
        (None, {"AWS_REGION": "a-1", "AWS_DEFAULT_REGION": "b-1"}, "a-1"),
        (None, {"AWS_REGION": "", "AWS_DEFAULT_REGION": "b-1"}, "b-1"),
    ],
)
def test_the_configured_region_is_before_the_environments(
    configured: str | None, environ: dict[str, str], expected: str
) -> None:
    assert of("bedrock", {}, {"aws_region": configured}, environ) == AwsIdentity(expected)


def test_a_missing_region_is_named() -> None:
    with pytest.raises(AuthError, match=r"model\.options\.bedrock\.aws_region.*AWS_REGION"):
        of("bedrock", PAIR)


@pytest.mark.parametrize("region", ["evil.example/", "us-east-1.evil.example", "us_east_1", "A-1"])
def test_a_region_cannot_become_another_host(region: str) -> None:
    with pytest.raises(AuthError, match="aws_region: expected an AWS region"):
        of("bedrock", PAIR, {"aws_region": region})


def test_half_a_key_pair_is_refused() -> None:
    with pytest.raises(AuthError, match="expected both"):
        of("bedrock", {"aws_access_key_id": "AKID"}, environ=REGION)


def test_a_role_is_part_of_the_identity() -> None:
    bedrock = {
        "aws_assume_role_arn": "arn:aws:iam::123456789012:role/r",
        "aws_role_session_name": "session",
        "aws_sts_endpoint_url": "https://sts.example",
    }
    found = of("bedrock", PAIR, bedrock, REGION)
    assert found == AwsIdentity(
        "us-east-1",
        "AKID",
        "secret-key",
        "arn:aws:iam::123456789012:role/r",
        "session",
        "https://sts.example",
    )
    assert isinstance(found, AwsIdentity)
    assert found.base() == AwsIdentity("us-east-1", "AKID", "secret-key")


def test_a_session_name_that_sts_refuses_is_named() -> None:
    bedrock = {"aws_assume_role_arn": "arn:x", "aws_role_session_name": "a b"}
    with pytest.raises(AuthError, match="aws_role_session_name: expected"):
        of("bedrock", {}, bedrock, REGION)


def test_gemini_is_called_with_a_service_account_when_that_is_asked_for() -> None:
    auth = {"gcp_service_account_json": KEY, "gcp_oauth_token_url": "https://o/t"}
    assert of("gemini", auth) is None
    assert of("gemini", {"gcp_use_service_account": True, **auth}) == GoogleIdentity(
        KEY, "https://o/t"
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("{", "expected the JSON text"),
        ("[]", "service_account"),
        ('{"type":"external_account"}', "service_account"),
        ('{"type":"service_account","client_email":"a@b"}', "no private_key"),
    ],
)
def test_a_key_that_is_none_is_refused_at_once(key: str, message: str) -> None:
    with pytest.raises(AuthError, match=message) as caught:
        of("gemini", {"gcp_use_service_account": True, "gcp_service_account_json": key})
    assert str(caught.value).startswith("auth.gcp_service_account_json: ")


def test_azure_is_called_with_a_managed_identity_when_that_is_asked_for() -> None:
    app = {"azure_client_id": "c", "azure_client_secret": "s\n", "azure_tenant_id": "t"}
    assert of("azure", app) is None
    assert of("azure", {"azure_use_managed_identity": True}) == AzureIdentity()
    assert of("azure", {"azure_use_managed_identity": True, **app}) == AzureIdentity("c", "s", "t")


def test_an_app_registration_needs_its_tenant() -> None:
    with pytest.raises(AuthError, match=r"auth\.azure_tenant_id"):
        of("azure", {"azure_use_managed_identity": True, "azure_client_secret": "s"})


@pytest.mark.parametrize("url", ["ftp://x/", "nohost", "https://u:p@host/", "https://h:99999/"])
def test_an_address_that_cannot_be_called_is_named_but_not_shown(url: str) -> None:
    with pytest.raises(AuthError, match=r"auth\.gcp_metadata_url: expected a URL") as caught:
        of("gemini", {"gcp_use_service_account": True, "gcp_metadata_url": url})
    assert url not in str(caught.value)


def test_options_of_embeddings_do_as_well() -> None:
    options = EmbeddingsOptions.model_validate({"bedrock": {"aws_region": "eu-west-1"}})
    assert identity("bedrock", Auth(), options, {}) == AwsIdentity("eu-west-1")


@pytest.mark.parametrize(
    "secretive",
    [
        AwsIdentity("us-east-1", "secret-id", "secret-key"),
        GoogleIdentity(KEY),
        AzureIdentity("c", "secret-key", "t"),
        BearerKey("secret-key"),
        BearerToken("secret-key"),
    ],
)
def test_the_text_of_an_identity_shows_no_secret(secretive: object) -> None:
    assert "secret-" not in f"{secretive} {secretive!r}"
    assert hash(secretive) == hash(secretive)


def test_identities_of_different_clouds_differ() -> None:
    assert len({AzureIdentity(), GoogleIdentity()}) == 2


@pytest.fixture
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize(
    ("needs", "environ", "extra"),
    [
        (AwsIdentity("us-east-1"), {}, "kong-ai-proxy[aws]"),
        (AwsIdentity("us-east-1", role_arn="arn:x"), {}, "kong-ai-proxy[aws]"),
        (GoogleIdentity(KEY), {}, "kong-ai-proxy[gcp]"),
        (GoogleIdentity(), {"GCP_SERVICE_ACCOUNT": KEY}, "kong-ai-proxy[gcp]"),
        (GoogleIdentity(), {"GOOGLE_APPLICATION_CREDENTIALS": "/f"}, "kong-ai-proxy[gcp]"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(
    needs: Identity, environ: dict[str, str], extra: str
) -> None:
    assert f"pip install '{extra}'" in (missing_extra(needs, environ) or "")


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize(
    ("needs", "environ"),
    [
        (AwsIdentity("us-east-1", "id", "key", role_arn="arn:x"), {}),
        (AwsIdentity("us-east-1"), {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "k"}),
        (GoogleIdentity(), {}),
        (AzureIdentity(), {}),
        (BearerKey("k"), {}),
    ],
)
def test_what_needs_no_library_asks_for_none(needs: Identity, environ: dict[str, str]) -> None:
    assert missing_extra(needs, environ) is None


def test_a_package_that_is_not_there_at_all_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert missing_extra(GoogleIdentity(KEY), {}) == identities.MISSING_GOOGLE_AUTH
