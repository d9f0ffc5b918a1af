"""Tokens of Google: which of its credentials is used, and the metadata server.

https://cloud.google.com/docs/authentication/application-default-credentials
https://cloud.google.com/compute/docs/access/authenticate-workloads
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import orjson

from kong_ai_proxy.auth.identity import (
    MISSING_GOOGLE_AUTH,
    BearerToken,
    GoogleIdentity,
    service_account,
)
from kong_ai_proxy.auth.sign import AuthError
from kong_ai_proxy.auth.tokens import oauth
from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.http import Http
from kong_ai_proxy.auth.tokens.threads import Threads

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
METADATA_HOST = "metadata.google.internal"
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
GCLOUD_FILE = "application_default_credentials.json"


class Google:
    """Where Google's tokens come from, in one environment."""

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

    async def fetch(self, identity: GoogleIdentity) -> BearerToken:
        """A token. Raises TokenError."""
        if identity.service_account_json:
            return await self._key(
                "auth.gcp_service_account_json", identity.service_account_json, identity
            )
        key = self._environ.get("GCP_SERVICE_ACCOUNT")
        default_first = self._environ.get("GCP_AUTH_METHOD_ORDER", "").lower() == "adc"
        if not key:
            return await self._default(identity)
        if default_first:
            try:
                return await self._default(identity)
            except TokenError:
                pass  # then the key that is there as well
        return await self._key("GCP_SERVICE_ACCOUNT", key, identity)

    async def _key(self, name: str, text: str, identity: GoogleIdentity) -> BearerToken:
        try:
            info = service_account(name, text)
        except AuthError as error:
            raise TokenError(str(error)) from None
        return await self._library(lambda: (name, info), identity)

    async def _default(self, identity: GoogleIdentity) -> BearerToken:
        """Application default credentials: those of a file, or else of the metadata server."""
        file = await self._threads.run(partial(default_file, self._environ))
        if file is None:
            return await self._metadata(identity.metadata_url)
        return await self._library(partial(_read, file), identity)

    async def _library(
        self, load: Callable[[], tuple[str, dict[str, object]]], identity: GoogleIdentity
    ) -> BearerToken:
        """The work of google-auth, in a thread."""
        loop = asyncio.get_running_loop()

        def work() -> BearerToken:
            try:
                from kong_ai_proxy.auth.tokens.google_library import Transport, token
            except ModuleNotFoundError:
                raise TokenError(MISSING_GOOGLE_AUTH) from None
            name, info = load()
            transport = Transport(self._http, loop)
            return token(name, info, [SCOPE], identity.oauth_token_url, transport)

        return await self._threads.run(work)

    async def _metadata(self, configured: str | None) -> BearerToken:
        host = self._environ.get("GCE_METADATA_HOST") or METADATA_HOST
        url = (configured or f"http://{host}").rstrip("/")
        if not url.endswith("/token"):
            url += METADATA_PATH
        headers = {"metadata-flavor": "Google"}
        try:
            answer = await self._http.send("GET", f"{url}?scopes={SCOPE}", headers)
        except TokenError as error:
            raise TokenError(
                "no Google credentials: neither auth.gcp_service_account_json, nor the variables "
                "GCP_SERVICE_ACCOUNT and GOOGLE_APPLICATION_CREDENTIALS, nor a metadata server: "
                f"{error}"
            ) from None
        return oauth.token("Google's metadata server", answer, self._now())


def default_file(environ: Mapping[str, str]) -> Path | None:
    """The file of application default credentials; None where there is none."""
    named = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        return Path(named)
    folder = environ.get("CLOUDSDK_CONFIG")
    if not folder:
        home = environ.get("HOME")
        folder = f"{home}/.config/gcloud" if home else None
    file = Path(folder, GCLOUD_FILE) if folder else None
    return file if file is not None and file.is_file() else None


def _read(file: Path) -> tuple[str, dict[str, object]]:
    try:
        info = orjson.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise TokenError(f"{file}: cannot be read as JSON: {type(error).__name__}") from None
    if not isinstance(info, dict):
        raise TokenError(f"{file}: expected a JSON object")
    return str(file), info
