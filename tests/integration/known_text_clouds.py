"""Clouds whose credentials have to be fetched, with token endpoints of this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import providers
from tests.integration.known_text_vendors import VENDORS, Vendor
from tests.unit.auth.endpoints import Clock, Endpoint, Seen

Json = dict[str, Any]

LIFETIME = 3600
TENANT, CLIENT_SECRET = "tenant-1", "azure-client-secret"
ROLE_SECRET, ROLE_SESSION = "role-secret-key", "role-session-token"

# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
_ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>
<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{session}</SessionToken>
<Expiration>{until}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


@dataclass
class Cloud:
    """One cloud: a configuration, and where its tokens come from."""

    name: str
    endpoint: Endpoint
    clock: Clock

    @property
    def vendor(self) -> Vendor:
        """With its auth."""
        return {"google": self._google, "aws": self._aws, "azure": self._azure}[self.name]()

    @property
    def environ(self) -> Mapping[str, str]:
        """What the relay's tokens see of the environment."""
        return {"AZURE_AUTHORITY_HOST": self.endpoint.url}

    @property
    def route(self) -> str:
        """Where tokens come from."""
        aws = "POST /"
        return {"google": "POST /token", "azure": f"POST /{TENANT}/oauth2/v2.0/token"}.get(
            self.name, aws
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be nowhere to be seen."""
        key = _private_key().splitlines()[5]
        aws = (ROLE_SECRET, ROLE_SESSION, VENDORS["bedrock"].auth["aws_secret_access_key"])
        return {"google": ("ya29.", key), "azure": ("eyJ", CLIENT_SECRET), "aws": aws}[self.name]

    def answer(self, _: Seen) -> web.Response:
        """The next credentials, numbered."""
        number = len(self.endpoint.seen)
        if self.name == "aws":
            until = datetime.fromtimestamp(self.clock() + LIFETIME, UTC)
            text = _ASSUMED.format(
                secret=ROLE_SECRET, session=ROLE_SESSION, until=f"{until:%Y-%m-%dT%H:%M:%SZ}"
            )
            return web.Response(text=text, content_type="text/xml")
        token = f"ya29.{number}" if self.name == "google" else f"eyJ.{number}"
        lifetime = LIFETIME
        if self.name == "google":  # whose library adds it to its own clock
            lifetime += int(self.clock() - time.time())
        told = {"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}
        return web.json_response(told)

    def _google(self) -> Vendor:
        auth = {
            "gcp_use_service_account": True,
            "gcp_service_account_json": _service_account(f"{self.endpoint.url}/token"),
            "gcp_metadata_url": self.endpoint.url,
        }
        return replace(VENDORS["vertex"], auth=auth)

    def _azure(self) -> Vendor:
        auth = {
            "azure_use_managed_identity": True,
            "azure_client_id": "client-1",
            "azure_client_secret": CLIENT_SECRET,
            "azure_tenant_id": TENANT,
        }
        return replace(VENDORS["azure"], auth=auth)

    def _aws(self) -> Vendor:
        role = {
            "aws_region": "us-east-1",
            "aws_assume_role_arn": "arn:aws:iam::123456789012:role/demo",
            "aws_sts_endpoint_url": self.endpoint.url,
        }
        return replace(
            VENDORS["bedrock"],
            options={"bedrock": role},
            stand_in=lambda: providers.bedrock("ASIAROLE", ROLE_SECRET, ROLE_SESSION),
        )


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _service_account(token_uri: str) -> str:
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project-1",
            "private_key_id": "id",
            "private_key": _private_key(),
            "client_email": "robot@project-1.iam.gserviceaccount.com",
            "token_uri": token_uri,
        }
    )
