"""Tokens of Google: whose key, whose token endpoint, and when the metadata server is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from kong_ai_proxy.auth.identity import GoogleIdentity
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.auth.tokens.google import METADATA_PATH, SCOPE
from tests.unit.auth.endpoints import Clock, Endpoint

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN = {"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"}


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def key(private_key: rsa.RSAPrivateKey) -> dict[str, str]:
    """A service account's key as Google gives it out, but for its token_uri."""
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "id",
        "private_key": pem.decode(),
        "client_email": "robot@p.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


@asynccontextmanager
async def opened(clock: Clock, environ: dict[str, str] | None = None) -> AsyncIterator[Tokens]:
    tokens = Tokens({} if environ is None else environ, now=clock)
    try:
        yield tokens
    finally:
        await tokens.close()


def at(key: dict[str, str], endpoint: Endpoint, **changes: str) -> str:
    """The JSON text of a key whose tokens come from the endpoint."""
    return json.dumps({**key, "token_uri": f"{endpoint.url}/token", **changes})


async def test_a_key_signs_what_google_verifies(
    clock: Clock, endpoint: Endpoint, key: dict[str, str], private_key: rsa.RSAPrivateKey
) -> None:
    endpoint.json("POST /token", TOKEN)
    async with opened(clock) as tokens:
        found = await tokens.get(GoogleIdentity(at(key, endpoint)))
    assert found[0] == "ya29.token"
    assert found.expires_at == pytest.approx(clock() + 3599, abs=5)
    form = endpoint.seen[0].form
    assert form["grant_type"] == GRANT
    public = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims: Any = jwt.decode(form["assertion"], certs=public)  # type: ignore[no-untyped-call]
    assert claims["iss"] == key["client_email"]
    assert claims["aud"] == key["token_uri"]
    assert claims["scope"] == SCOPE


async def test_the_configured_token_url_is_before_the_keys(
    clock: Clock, endpoint: Endpoint, key: dict[str, str]
) -> None:
    endpoint.json("POST /other", TOKEN)
    identity = GoogleIdentity(json.dumps(key), oauth_token_url=f"{endpoint.url}/other")
    async with opened(clock) as tokens:
        assert (await tokens.get(identity))[0] == "ya29.token"


async def test_a_key_means_that_no_metadata_server_is_asked(
    clock: Clock, endpoint: Endpoint, key: dict[str, str]
) -> None:
    host = endpoint.url.removeprefix("http://")
    async with opened(clock, {"GCE_METADATA_HOST": host}) as tokens:
        endpoint.json("POST /token", {"error": "invalid_grant"}, 400)
        identity = GoogleIdentity(at(key, endpoint), metadata_url=endpoint.url)
        with pytest.raises(TokenError):
            await tokens.get(identity)
    assert [seen.target for seen in endpoint.seen] == ["/token"]


async def test_the_configured_key_is_before_the_environments(
    clock: Clock, endpoint: Endpoint, key: dict[str, str]
) -> None:
    endpoint.json("POST /token", TOKEN)
    endpoint.json("POST /environment", {**TOKEN, "access_token": "environment"})
    environ = {"GCP_SERVICE_ACCOUNT": at(key, endpoint, token_uri=f"{endpoint.url}/environment")}
    async with opened(clock, environ) as tokens:
        assert (await tokens.get(GoogleIdentity(at(key, endpoint))))[0] == "ya29.token"
        assert (await tokens.get(GoogleIdentity()))[0] == "environment"


async def test_the_environments_key_is_before_the_default_credentials(
    clock: Clock, endpoint: Endpoint, key: dict[str, str], tmp_path: Path
) -> None:
    endpoint.json("POST /token", TOKEN)
    endpoint.json("POST /default", {**TOKEN, "access_token": "default"})
    file = tmp_path / "adc.json"
    file.write_text(at(key, endpoint, token_uri=f"{endpoint.url}/default"))
    environ = {
        "GCP_SERVICE_ACCOUNT": at(key, endpoint),
        "GOOGLE_APPLICATION_CREDENTIALS": str(file),
    }
    async with opened(clock, environ) as tokens:
        assert (await tokens.get(GoogleIdentity()))[0] == "ya29.token"
    async with opened(clock, {**environ, "GCP_AUTH_METHOD_ORDER": "adc"}) as tokens:
        assert (await tokens.get(GoogleIdentity()))[0] == "default"


async def test_with_the_order_turned_the_environments_key_is_what_is_left(
    clock: Clock, endpoint: Endpoint, key: dict[str, str]
) -> None:
    endpoint.json("POST /token", TOKEN)
    environ = {"GCP_SERVICE_ACCOUNT": at(key, endpoint), "GCP_AUTH_METHOD_ORDER": "adc"}
    async with opened(clock, environ) as tokens:
        assert (await tokens.get(GoogleIdentity(metadata_url=endpoint.url)))[0] == "ya29.token"
    assert [seen.path for seen in endpoint.seen] == [METADATA_PATH, "/token"]


async def test_gclouds_own_file_is_found(
    clock: Clock, endpoint: Endpoint, key: dict[str, str], tmp_path: Path
) -> None:
    endpoint.json("POST /token", TOKEN)
    folder = tmp_path / ".config" / "gcloud"
    folder.mkdir(parents=True)
    (folder / "application_default_credentials.json").write_text(at(key, endpoint))
    for environ in ({"HOME": str(tmp_path)}, {"CLOUDSDK_CONFIG": str(folder)}):
        async with opened(clock, environ) as tokens:
            assert (await tokens.get(GoogleIdentity()))[0] == "ya29.token"


async def test_workload_identity_federation_trades_a_token(
    clock: Clock, endpoint: Endpoint, tmp_path: Path
) -> None:
    """https://cloud.google.com/iam/docs/workload-identity-federation-with-kubernetes"""
    subject, file = tmp_path / "subject", tmp_path / "adc.json"
    subject.write_text("subject-token")
    audience = (
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
    )
    file.write_text(
        json.dumps(
            {
                "type": "external_account",
                "audience": audience,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{endpoint.url}/sts",
                "credential_source": {"file": str(subject)},
            }
        )
    )
    endpoint.json("POST /sts", {**TOKEN, "issued_token_type": "x"})
    async with opened(clock, {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}) as tokens:
        assert (await tokens.get(GoogleIdentity()))[0] == "ya29.token"
    (seen,) = endpoint.seen
    assert (seen.form["subject_token"], seen.form["audience"]) == ("subject-token", audience)
    assert seen.form["scope"] == SCOPE


async def test_a_users_file_is_refreshed(clock: Clock, endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "adc.json"
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "s"}
    file.write_text(
        json.dumps({**user, "refresh_token": "r", "token_uri": "https://oauth2.googleapis.com"})
    )
    async with opened(clock, {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}) as tokens:
        with pytest.raises(TokenError, match=r"adc\.json: oauth2\.googleapis\.com: cannot conn"):
            await tokens.get(GoogleIdentity())


@pytest.mark.parametrize("suffix", ["", "/", METADATA_PATH])
async def test_the_metadata_server_is_where_the_configuration_says(
    clock: Clock, endpoint: Endpoint, suffix: str
) -> None:
    endpoint.json(f"GET {METADATA_PATH}", TOKEN)
    async with opened(clock) as tokens:
        found = await tokens.get(GoogleIdentity(metadata_url=endpoint.url + suffix))
    assert found == ("ya29.token", clock() + 3599)
    (seen,) = endpoint.seen
    assert seen.headers["metadata-flavor"] == "Google"
    assert seen.query == {"scopes": SCOPE}


async def test_the_metadata_server_is_where_the_environment_says(
    clock: Clock, endpoint: Endpoint
) -> None:
    endpoint.json(f"GET {METADATA_PATH}", TOKEN)
    host = endpoint.url.removeprefix("http://")
    async with opened(clock, {"GCE_METADATA_HOST": host}) as tokens:
        assert (await tokens.get(GoogleIdentity()))[0] == "ya29.token"


async def test_nothing_found_says_where_was_looked(clock: Clock) -> None:
    async with opened(clock) as tokens:
        with pytest.raises(TokenError) as caught:
            await tokens.get(GoogleIdentity())
    text = str(caught.value)
    assert "auth.gcp_service_account_json" in text
    assert "GCP_SERVICE_ACCOUNT" in text
    assert "metadata.google.internal: cannot connect" in text


async def test_a_refusal_gives_the_code_and_not_the_text(
    clock: Clock, endpoint: Endpoint, key: dict[str, str]
) -> None:
    refusal = {"error": "invalid_grant", "error_description": "Invalid JWT, secret-text"}
    endpoint.json("POST /token", refusal, 400)
    async with opened(clock) as tokens:
        with pytest.raises(TokenError) as caught:
            await tokens.get(GoogleIdentity(at(key, endpoint)))
    expected = "auth.gcp_service_account_json: Google refused it with invalid_grant"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected the JSON text"),
        ('{"type":"service_account","client_email":"a","private_key":"x"}', "not usable"),
    ],
)
async def test_a_key_of_the_environment_that_is_none_is_named(
    clock: Clock, text: str, message: str
) -> None:
    async with opened(clock, {"GCP_SERVICE_ACCOUNT": text}) as tokens:
        with pytest.raises(TokenError, match=rf"^GCP_SERVICE_ACCOUNT: {message}"):
            await tokens.get(GoogleIdentity())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as JSON: FileNotFoundError"),
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"type":"other"}', 'expected "type" to be one of service_account, external_account'),
    ],
)
async def test_a_file_that_is_none_is_named(
    clock: Clock, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "adc.json"
    if content is not None:
        file.write_text(content)
    async with opened(clock, {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}) as tokens:
        with pytest.raises(TokenError, match=message):
            await tokens.get(GoogleIdentity())


async def test_a_token_is_renewed_before_it_ends(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.json(f"GET {METADATA_PATH}", TOKEN)
    identity = GoogleIdentity(metadata_url=endpoint.url)
    async with opened(clock) as tokens:
        await tokens.get(identity)
        clock.advance(3500)
        endpoint.json(f"GET {METADATA_PATH}", {**TOKEN, "access_token": "new"})
        assert (await tokens.get(identity))[0] == "ya29.token"
        (renewing,) = tokens._cache._tasks
        await renewing
        assert (await tokens.get(identity))[0] == "new"


async def test_without_google_auth_the_command_that_installs_it_is_named(
    clock: Clock, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    monkeypatch.delitem(sys.modules, "kong_ai_proxy.auth.tokens.google_library", raising=False)
    async with opened(clock) as tokens:
        with pytest.raises(TokenError, match=r"pip install 'kong-ai-proxy\[gcp\]'"):
            await tokens.get(GoogleIdentity(json.dumps(key)))


def test_google_auth_does_not_need_requests() -> None:
    """The extra does not bring it."""
    script = (
        "import sys; sys.modules['requests'] = None\n"
        "import kong_ai_proxy.auth.tokens.google_library"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
