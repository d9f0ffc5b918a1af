"""Tokens of Microsoft Entra: which endpoint is asked for which identity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kong_ai_proxy.auth.identity import AzureIdentity
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from tests.unit.auth.endpoints import Clock, Endpoint

RESOURCE = "https://cognitiveservices.azure.com"
APP = AzureIdentity("client", "app-secret", "tenant")
MACHINE_PATH = "/metadata/identity/oauth2/token"
GRANTED_PATH = "/tenant/oauth2/v2.0/token"
# https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
TOKEN: dict[str, Any] = {
    "access_token": "eyJ0eXAi",
    "refresh_token": "",
    "expires_in": "3599",
    "expires_on": "1506484173",
    "not_before": "1506480273",
    "resource": RESOURCE,
    "token_type": "Bearer",
}


@asynccontextmanager
async def opened(clock: Clock, environ: dict[str, str]) -> AsyncIterator[Tokens]:
    tokens = Tokens(environ, now=clock)
    try:
        yield tokens
    finally:
        await tokens.close()


async def test_an_app_registration_asks_its_tenant(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.json(f"POST {GRANTED_PATH}", {**TOKEN, "expires_in": 3599})
    environ = {"AZURE_AUTHORITY_HOST": f"{endpoint.url}/"}
    async with opened(clock, environ) as tokens:
        assert await tokens.get(APP) == ("eyJ0eXAi", clock() + 3599)
    assert endpoint.seen[0].form == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": "app-secret",
        "scope": f"{RESOURCE}/.default",
    }


async def test_an_identity_may_name_what_its_token_is_for(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.json(f"POST {GRANTED_PATH}", {**TOKEN, "expires_in": 3599})
    endpoint.json(f"GET {MACHINE_PATH}", TOKEN)
    resource = "https://redis.azure.com"
    environ = {
        "AZURE_AUTHORITY_HOST": endpoint.url,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url,
    }
    async with opened(clock, environ) as tokens:
        await tokens.get(AzureIdentity("client", "app-secret", "tenant", resource))
        await tokens.get(AzureIdentity(resource=resource))
    granted, machine = endpoint.seen
    assert granted.form["scope"] == f"{resource}/.default"
    assert machine.query["resource"] == resource


async def test_the_machines_identity_needs_nothing_else(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.json(f"GET {MACHINE_PATH}", TOKEN)
    async with opened(clock, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}) as tokens:
        assert await tokens.get(AzureIdentity()) == ("eyJ0eXAi", clock() + 3599)
    (seen,) = endpoint.seen
    assert seen.headers["metadata"] == "true"
    assert seen.query == {"api-version": "2018-02-01", "resource": RESOURCE}


async def test_a_user_assigned_identity_is_named(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.json(f"GET {MACHINE_PATH}", TOKEN)
    async with opened(clock, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}) as tokens:
        await tokens.get(AzureIdentity("client"))
    assert endpoint.seen[0].query["client_id"] == "client"


async def test_app_service_has_an_endpoint_of_its_own(clock: Clock, endpoint: Endpoint) -> None:
    ends = int(clock()) + 1000
    answer = {"access_token": "app", "expires_on": str(ends), "token_type": "Bearer"}
    endpoint.json("GET /msi/token", answer)
    environ = {"IDENTITY_ENDPOINT": f"{endpoint.url}/msi/token", "IDENTITY_HEADER": "header-secret"}
    async with opened(clock, environ) as tokens:
        assert await tokens.get(AzureIdentity("client")) == ("app", float(ends))
    (seen,) = endpoint.seen
    assert seen.headers["x-identity-header"] == "header-secret"
    assert seen.query == {
        "api-version": "2019-08-01",
        "resource": RESOURCE,
        "client_id": "client",
    }


@pytest.mark.parametrize(
    ("identity", "client"), [(AzureIdentity(), "pod-client"), (AzureIdentity("other"), "other")]
)
async def test_a_pod_of_aks_trades_its_token(
    clock: Clock, endpoint: Endpoint, tmp_path: Path, identity: AzureIdentity, client: str
) -> None:
    file = tmp_path / "token"
    file.write_text("kubernetes-token\n")
    endpoint.json(f"POST {GRANTED_PATH}", TOKEN)
    environ = {
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
        "AZURE_CLIENT_ID": "pod-client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_AUTHORITY_HOST": endpoint.url,
    }
    async with opened(clock, environ) as tokens:
        assert (await tokens.get(identity))[0] == "eyJ0eXAi"
    assert endpoint.seen[0].form == {
        "grant_type": "client_credentials",
        "client_id": client,
        "scope": f"{RESOURCE}/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "kubernetes-token",
    }


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "neither auth.azure_client_id and"),
        ({"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"}, "cannot be read: FileNotFoundError"),
    ],
)
async def test_a_pod_without_all_it_needs_says_what(
    clock: Clock, environ: dict[str, str], message: str
) -> None:
    async with opened(clock, {"AZURE_FEDERATED_TOKEN_FILE": "/no/file", **environ}) as tokens:
        with pytest.raises(TokenError, match=message):
            await tokens.get(AzureIdentity())


async def test_an_app_registration_asks_no_metadata_service(
    clock: Clock, endpoint: Endpoint
) -> None:
    environ = {
        "AZURE_AUTHORITY_HOST": endpoint.url,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url,
        "AZURE_FEDERATED_TOKEN_FILE": "/no/file",
        "IDENTITY_ENDPOINT": endpoint.url,
        "IDENTITY_HEADER": "h",
    }
    async with opened(clock, environ) as tokens:
        with pytest.raises(TokenError):
            await tokens.get(APP)
    assert [seen.path for seen in endpoint.seen] == [GRANTED_PATH]


async def test_a_tenant_cannot_lead_elsewhere(clock: Clock, endpoint: Endpoint) -> None:
    async with opened(clock, {"AZURE_AUTHORITY_HOST": endpoint.url}) as tokens:
        with pytest.raises(TokenError):
            await tokens.get(AzureIdentity("client", "s", "../evil"))
    assert endpoint.seen[0].path == "/..%2Fevil/oauth2/v2.0/token"


@pytest.mark.parametrize(
    ("authority", "resource"),
    [
        ("https://login.microsoftonline.us", "https://cognitiveservices.azure.us"),
        ("https://login.microsoftonline.us/", "https://cognitiveservices.azure.us"),
        ("https://login.chinacloudapi.cn", "https://cognitiveservices.azure.cn"),
        ("https://login.partner.microsoftonline.cn", "https://cognitiveservices.azure.cn"),
        ("https://login.microsoftonline.com", RESOURCE),
        ("", RESOURCE),
    ],
)
async def test_a_national_cloud_has_its_own_scope(
    clock: Clock, authority: str, resource: str
) -> None:
    async with opened(clock, {"AZURE_AUTHORITY_HOST": authority}) as tokens:
        assert tokens._azure._resource == resource


async def test_a_refusal_gives_the_codes_and_not_the_text(clock: Clock, endpoint: Endpoint) -> None:
    refusal = {
        "error": "invalid_client",
        "error_description": "AADSTS7000215: Invalid client secret provided: app-secret.",
    }
    endpoint.json(f"POST {GRANTED_PATH}", refusal, 401)
    async with opened(clock, {"AZURE_AUTHORITY_HOST": endpoint.url}) as tokens:
        with pytest.raises(TokenError) as caught:
            await tokens.get(APP)
    assert str(caught.value) == "Microsoft Entra answered 401 invalid_client AADSTS7000215"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"access_token": "t"},
        {"access_token": "t", "expires_in": "soon"},
        {"access_token": 1, "expires_in": 1},
        {"access_token": "a\r\nb", "expires_in": 1},
    ],
)
async def test_an_answer_that_is_none_is_an_error(
    clock: Clock, endpoint: Endpoint, answer: Any
) -> None:
    endpoint.json(f"GET {MACHINE_PATH}", answer)
    async with opened(clock, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}) as tokens:
        with pytest.raises(TokenError, match="Azure's metadata service answered with"):
            await tokens.get(AzureIdentity())


async def test_a_redirect_is_not_followed(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.text(f"GET {MACHINE_PATH}", "", 302)
    async with opened(clock, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}) as tokens:
        with pytest.raises(TokenError, match="answered 302"):
            await tokens.get(AzureIdentity())
    assert len(endpoint.seen) == 1


async def test_a_token_is_renewed_within_the_hour(clock: Clock, endpoint: Endpoint) -> None:
    """A managed identity's token that was never renewed: 401 after an hour."""
    endpoint.json(f"GET {MACHINE_PATH}", TOKEN)
    async with opened(clock, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}) as tokens:
        await tokens.get(AzureIdentity())
        clock.advance(3600)
        endpoint.json(f"GET {MACHINE_PATH}", {**TOKEN, "access_token": "new"})
        assert (await tokens.get(AzureIdentity()))[0] == "new"


async def test_a_proxy_is_asked_for_and_its_password_not_shown(clock: Clock) -> None:
    asked: list[tuple[str, str, int]] = []

    def proxy_for(scheme: str, host: str, port: int) -> str | None:
        asked.append((scheme, host, port))
        return "http://user:proxy-secret@127.0.0.1:1"

    tokens = Tokens({}, proxy_for=proxy_for, now=clock)
    with pytest.raises(TokenError) as caught:
        await tokens.get(APP)
    await tokens.close()
    assert asked == [("https", "login.microsoftonline.com", 443)]
    assert "proxy-secret" not in repr(caught.value)
