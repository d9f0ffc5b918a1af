"""Credentials for identities: the one door to everything in this package."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial

from kong_ai_proxy.auth.identity import (
    AwsIdentity,
    AzureIdentity,
    BearerKey,
    BearerToken,
    Credential,
    GoogleIdentity,
    Identity,
    key_pair,
)
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.auth.tokens import aws
from kong_ai_proxy.auth.tokens.azure import Azure
from kong_ai_proxy.auth.tokens.cache import Cache
from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.google import Google
from kong_ai_proxy.auth.tokens.http import Http, ProxyFor
from kong_ai_proxy.auth.tokens.threads import Threads

HTTPS = 443


class Tokens:
    """Gets credentials, keeps them, and renews them before they end. Belongs to one event loop.

    Keys that are given, in the configuration or the environment, never cause a request.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        ca_file: str | None = None,
        proxy_for: ProxyFor | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`ca_file` has certificates that are trusted beside the system's. botocore and google-auth
        read more of the process's own environment than `environ` (AWS_CA_BUNDLE among it).
        Raises OSError or ssl.SSLError for a CA file that cannot be loaded."""
        self._environ = os.environ if environ is None else environ
        self._now = now
        self._http = Http(ca_file, proxy_for)
        self._threads = Threads()
        self._google = Google(self._environ, self._http, self._threads, now)
        self._azure = Azure(self._environ, self._http, self._threads, now)
        self._cache = Cache(self._fetch, now)

    def ready(self, identity: Identity) -> Credential | None:
        """What can be used at once; None where `get` must wait."""
        return self._cache.ready(identity) or self._given(identity)

    async def get(self, identity: Identity) -> Credential:
        """What can be used, after waiting for it if need be. Raises TokenError."""
        found = self.ready(identity)
        return await self._cache.get(identity) if found is None else found

    async def close(self) -> None:
        """End what is being fetched. What waits for it gets a TokenError."""
        await self._cache.close()
        await self._http.close()

    def _given(self, identity: Identity) -> Credential | None:
        found: Credential | None = None
        if isinstance(identity, BearerKey):
            found = BearerToken(identity.key)
        elif isinstance(identity, AwsIdentity) and identity.role_arn is None:
            found = key_pair(identity, self._environ)
        if found is not None:
            self._cache.keep(identity, found)
        return found

    async def _fetch(self, identity: Identity) -> Credential:
        if isinstance(identity, AwsIdentity):
            return await self._aws(identity)
        if isinstance(identity, GoogleIdentity):
            return await self._google.fetch(identity)
        if isinstance(identity, AzureIdentity):
            return await self._azure.fetch(identity)
        raise TypeError(f"{type(identity).__name__} is given")

    async def _aws(self, identity: AwsIdentity) -> AwsCredentials:
        if identity.role_arn is None:
            proxy = self._http.proxy_for("https", aws.sts_host(identity.region), HTTPS)
            return await self._threads.run(partial(aws.load_chain, identity.region, proxy))
        base = await self.get(identity.base())
        if not isinstance(base, AwsCredentials):
            raise TokenError("a role can be assumed with AWS credentials only")
        return await aws.assume_role(self._http, identity, base, self._now)
