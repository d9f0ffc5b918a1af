"""Which texts of the operator's are kept out of logs and answers."""

from __future__ import annotations

import pytest

from kong_ai_proxy.auth.identity import BearerToken, Credential
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.exchange.keys import secrets_of

KEYS = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI", "a-session-token")


@pytest.mark.parametrize(
    ("credential", "secrets"),
    [
        (None, ()),
        (BearerToken("ya29.token"), ("ya29.token",)),
        (KEYS, ("AKIDEXAMPLE", "wJalrXUtnFEMI", "a-session-token")),
    ],
)
def test_a_clouds_credential_is_secret(
    credential: Credential | None, secrets: tuple[str, ...]
) -> None:
    assert secrets_of(credential) == secrets


def test_a_placeholder_is_none() -> None:
    """It would be found in any text."""
    assert secrets_of(AwsCredentials("a", "b")) == ()
