"""Tokens of Microsoft Entra, for Azure's AI services where an identity names nothing else.

Three requests, so no library. Their references:
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference
https://learn.microsoft.com/azure/aks/workload-identity-overview
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from kong_ai_proxy.auth.identity import AzureIdentity, BearerToken
from kong_ai_proxy.auth.tokens import oauth
from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.http import Http
from kong_ai_proxy.auth.tokens.threads import Threads

AUTHORITY = "https://login.microsoftonline.com"
IMDS = "http://169.254.169.254"

# https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure
_RESOURCES = {
    "login.microsoftonline.us": "https://cognitiveservices.azure.us",
    "login.chinacloudapi.cn": "https://cognitiveservices.azure.cn",
    "login.partner.microsoftonline.cn": "https://cognitiveservices.azure.cn",
}
_RESOURCE = "https://cognitiveservices.azure.com"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Azure:
    """Where Azure's tokens come from, in one environment."""

    def __init__(
        self,
        environ: Mapping[str, str],
        http: Http,
        threads: Threads,
        now: Callable[[], float],
    ) -> None:
        self._environ = environ
        self._http = http
        self._threads = threads
        self._now = now
        self._authority = environ.get("AZURE_AUTHORITY_HOST") or AUTHORITY
        self._resource = _RESOURCES.get(urlsplit(self._authority).hostname or "", _RESOURCE)

    async def fetch(self, identity: AzureIdentity) -> BearerToken:
        """A token. Raises TokenError."""
        if identity.client_secret:
            return await self._app(identity)
        if self._environ.get("AZURE_FEDERATED_TOKEN_FILE"):
            return await self._workload(identity, self._environ["AZURE_FEDERATED_TOKEN_FILE"])
        if self._environ.get("IDENTITY_ENDPOINT") and self._environ.get("IDENTITY_HEADER"):
            return await self._app_service(identity)
        return await self._machine(identity)

    async def _app(self, identity: AzureIdentity) -> BearerToken:
        form = {"client_secret": identity.client_secret or ""}
        return await self._granted(
            identity, identity.tenant_id or "", identity.client_id or "", form
        )

    async def _workload(self, identity: AzureIdentity, file: str) -> BearerToken:
        """AKS: the token that Kubernetes puts into a file, for one of Entra's."""
        client = identity.client_id or self._environ.get("AZURE_CLIENT_ID")
        tenant = identity.tenant_id or self._environ.get("AZURE_TENANT_ID")
        if not client or not tenant:
            raise TokenError(
                "AZURE_FEDERATED_TOKEN_FILE is set, but neither auth.azure_client_id and "
                "auth.azure_tenant_id nor AZURE_CLIENT_ID and AZURE_TENANT_ID"
            )
        try:
            assertion = await self._threads.run(Path(file).read_text)
        except (OSError, ValueError) as error:
            raise TokenError(
                f"AZURE_FEDERATED_TOKEN_FILE cannot be read: {type(error).__name__}"
            ) from None
        form = {"client_assertion_type": _ASSERTION, "client_assertion": assertion.strip()}
        return await self._granted(identity, tenant, client, form)

    async def _granted(
        self, identity: AzureIdentity, tenant: str, client: str, form: Mapping[str, str]
    ) -> BearerToken:
        fields = {
            "grant_type": "client_credentials",
            "client_id": client,
            "scope": f"{identity.resource or self._resource}/.default",
            **form,
        }
        url = f"{self._authority.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        answer = await self._http.send("POST", url, oauth.FORM, urlencode(fields).encode())
        return oauth.token("Microsoft Entra", answer, self._now())

    async def _app_service(self, identity: AzureIdentity) -> BearerToken:
        query = self._query("2019-08-01", identity)
        headers = {"x-identity-header": self._environ["IDENTITY_HEADER"]}
        url = f"{self._environ['IDENTITY_ENDPOINT']}?{query}"
        answer = await self._http.send("GET", url, headers)
        return oauth.token("App Service's identity endpoint", answer, self._now())

    async def _machine(self, identity: AzureIdentity) -> BearerToken:
        host = self._environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or IMDS
        query = self._query("2018-02-01", identity)
        url = f"{host.rstrip('/')}/metadata/identity/oauth2/token?{query}"
        answer = await self._http.send("GET", url, {"metadata": "true"})
        return oauth.token("Azure's metadata service", answer, self._now())

    def _query(self, version: str, identity: AzureIdentity) -> str:
        fields = {"api-version": version, "resource": identity.resource or self._resource}
        if identity.client_id:
            fields["client_id"] = identity.client_id
        return urlencode(fields)
