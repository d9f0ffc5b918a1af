"""AWS signatures: botocore must come to the same one."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote

import pytest
from botocore import auth as botocore_auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.auth.sigv4 import AwsCredentials, sign

KEYS = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = 1440938160.0

segments = st.one_of(
    st.text(max_size=12).map(lambda text: quote(text, safe="")),
    st.text(string.ascii_letters + string.digits + "-._~:@!$&'()*+,;=", max_size=12),
    st.sampled_from(["", ".", "..", "%2e%2e", "arn%3Aaws%3Abedrock%2Fprofile", "model"]),
)
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))
words = st.text(max_size=8).map(lambda text: quote(text, safe="-_.~"))
queries = st.lists(
    st.one_of(st.tuples(words, words).map("=".join), words, st.just("a=1")), max_size=6
).map("&".join)
names = st.one_of(
    st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12),
    st.sampled_from(["Content-Type", "User-Agent", "TE", "X-Amz-Meta", "accept"]),
).filter(lambda name: name.lower() not in ("date", "host", "x-amz-date", "authorization"))
values = st.text(string.ascii_letters + string.digits + ' \t,;="é', max_size=20).map(str.strip)
headers = st.dictionaries(names, values, max_size=5).filter(
    lambda found: len({name.lower() for name in found}) == len(found)
)
credentials = st.builds(
    AwsCredentials,
    st.text(string.ascii_uppercase, min_size=16, max_size=20),
    st.text(string.ascii_letters + "/+", min_size=20, max_size=40),
    st.none() | st.text(string.ascii_letters + "/+=", min_size=1, max_size=80),
)


def by_botocore(
    method: str,
    host: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
    keys: AwsCredentials,
    service: str = "bedrock",
) -> str:
    """The header Authorization that botocore makes at NOW."""
    signer = botocore_auth.S3SigV4Auth if service == "s3" else botocore_auth.SigV4Auth
    request = AWSRequest(method, f"https://{host}{target}", {**headers}, body)
    frozen = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    moment = datetime.fromtimestamp(NOW, UTC)
    with mock.patch.object(botocore_auth, "get_current_datetime", return_value=moment):
        signer(frozen, service, "us-east-1").add_auth(request)
    return str(request.headers["Authorization"])


def ours(
    method: str = "POST",
    path: str = "/",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    keys: AwsCredentials = KEYS,
    service: str = "bedrock",
) -> dict[str, str]:
    """The headers that we set at NOW."""
    return sign(
        method=method,
        host="bedrock-runtime.us-east-1.amazonaws.com",
        path=path,
        query=query,
        headers=headers or {},
        body=body,
        credentials=keys,
        region="us-east-1",
        service=service,
        now=NOW,
    )


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=paths,
    query=queries,
    headers=headers,
    body=st.binary(max_size=100),
    keys=credentials,
)
def test_any_request_is_signed_as_botocore_does(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes, keys: AwsCredentials
) -> None:
    set_headers = ours(method, path, query, headers, body, keys)
    host = "bedrock-runtime.us-east-1.amazonaws.com"
    target = f"{path}?{query}" if query else path
    assert set_headers["authorization"] == by_botocore(method, host, target, headers, body, keys)


@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
        "anthropic.claude-3-5-sonnet-20240620-v1%3A0",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.nova",
    ],
)
def test_model_ids_and_arns_are_encoded_once_more(model: str) -> None:
    path = f"/model/{model}/converse"
    host = "bedrock-runtime.us-east-1.amazonaws.com"
    assert ours(path=path, body=b"{}")["authorization"] == by_botocore(
        "POST", host, path, {}, b"{}", KEYS
    )


@pytest.mark.parametrize("path", ["/bucket/a%20b//c", "/bucket/../x", "/"])
def test_s3_signs_the_path_as_it_is_and_names_the_hash(path: str) -> None:
    set_headers = ours("PUT", path, body=b"data", service="s3")
    host = "bedrock-runtime.us-east-1.amazonaws.com"
    assert set_headers["authorization"] == by_botocore("PUT", host, path, {}, b"data", KEYS, "s3")
    assert len(set_headers["x-amz-content-sha256"]) == 64


def test_a_given_hash_stands_for_the_body() -> None:
    given_hash = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    host = "bedrock-runtime.us-east-1.amazonaws.com"
    assert ours(headers=given_hash, body=b"x")["authorization"] == by_botocore(
        "POST", host, "/", given_hash, b"x", KEYS
    )


def test_only_what_is_needed_is_set() -> None:
    assert set(ours()) == {"authorization", "x-amz-date"}
    with_token = ours(keys=KEYS._replace(session_token="token"))
    assert set(with_token) == {"authorization", "x-amz-date", "x-amz-security-token"}


def test_an_earlier_signature_is_replaced() -> None:
    old = {"Authorization": "old", "X-Amz-Date": "old", "X-Amz-Security-Token": "old"}
    keys = KEYS._replace(session_token="token")
    assert ours(headers=old, keys=keys) == ours(keys=keys)


def test_one_key_with_two_secrets_has_two_signatures() -> None:
    other = KEYS._replace(secret_access_key="other")
    assert ours()["authorization"] != ours(keys=other)["authorization"]


def test_the_text_of_credentials_shows_none() -> None:
    shown = f"{KEYS._replace(session_token='session-token')!r} {KEYS}"
    assert not any(secret in shown for secret in (*KEYS[:2], "session-token"))
