"""Whatever a token endpoint answers, no secret gets into an error or a log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from kong_ai_proxy.auth.identity import AwsIdentity, AzureIdentity, GoogleIdentity, Identity
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.auth.tokens.http import Answer, Http

_PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)
KEY = json.dumps(
    {
        "type": "service_account",
        "client_email": "robot@example",
        "private_key": _PEM,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
)
SECRETS = (
    "SecretAccess/Key+1",
    "session-secret-2",
    "azure-secret-3",
    "answered-token-4",
    "identity-header-5",
    _PEM.splitlines()[1],
)
ENVIRON = {
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": SECRETS[0],
    "AWS_SESSION_TOKEN": SECRETS[1],
}
APP_SERVICE = {
    "IDENTITY_ENDPOINT": "http://127.0.0.1/msi",
    "IDENTITY_HEADER": SECRETS[4],
}
IDENTITIES: list[tuple[Identity, dict[str, str]]] = [
    (AwsIdentity("us-east-1", role_arn="arn:aws:iam::1:role/r"), ENVIRON),
    (AzureIdentity("client", SECRETS[2], "tenant"), {}),
    (AzureIdentity(), APP_SERVICE),
    (GoogleIdentity(KEY), {}),
    (GoogleIdentity(), {"GCP_SERVICE_ACCOUNT": KEY}),
    (GoogleIdentity(), {}),
]

secrets = st.sampled_from(SECRETS)
values = secrets | secrets.map(lambda secret: f"Invalid: {secret}.") | st.integers() | st.none()
members = st.sampled_from(
    ["access_token", "error", "error_description", "expires_in", "id_token", "message"]
)
json_bodies = st.dictionaries(members, values, max_size=5).map(json.dumps)
xml_bodies = st.builds(
    '<E xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>{}</Code><Message>{}'
    "</Message></Error></E>".format,
    st.sampled_from(["AccessDenied", "a b", SECRETS[0]]),
    secrets,
)
bodies = st.one_of(json_bodies, xml_bodies, secrets, secrets.map(lambda text: f"<html>{text}"))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth asks again after seconds."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What anybody logs, at any level."""
    lines: list[str] = []

    class Keep(logging.Handler):
        @override
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root, handler, level = logging.getLogger(), Keep(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


async def failure(identity: Identity, environ: dict[str, str], answer: Answer) -> TokenError | None:
    """The error for an answer; None where it is a credential."""
    tokens = Tokens(environ)

    async def send(*_: Any) -> Answer:
        return answer

    try:
        with mock.patch.object(Http, "send", send):
            found = await tokens.get(identity)
    except TokenError as error:
        return error
    finally:
        await tokens.close()
    assert not any(secret in f"{found!r} {found}" for secret in SECRETS)
    return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    who=st.sampled_from(IDENTITIES),
    status=st.sampled_from([200, 400, 401, 403, 404, 429, 500, 503]),
    body=bodies,
)
def test_no_secret_is_shown_whatever_is_answered(
    logged: list[str], who: tuple[Identity, dict[str, str]], status: int, body: str
) -> None:
    error = asyncio.run(failure(*who, Answer(status, {}, body.encode())))
    shown = "\n".join(logged)
    if error is not None:
        shown += f"{error!r} {error}" + "".join(traceback.format_exception(error))
    assert not any(secret in shown for secret in SECRETS)
    logged.clear()
