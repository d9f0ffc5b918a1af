"""Credentials of AWS: from the chain, and of roles that are assumed."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]

from kong_ai_proxy.auth.identity import AwsIdentity, BearerKey, BearerToken
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.auth.tokens import TokenError, Tokens, aws
from tests.unit.auth.endpoints import Clock, Endpoint, Seen

CHAIN = AwsIdentity("eu-west-1")
ROLE = "arn:aws:iam::123456789012:role/demo"


@asynccontextmanager
async def opened(clock: Clock, environ: dict[str, str] | None = None) -> AsyncIterator[Tokens]:
    tokens = Tokens(environ, now=clock)
    try:
        yield tokens
    finally:
        await tokens.close()


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def role(endpoint: Endpoint, **changes: Any) -> AwsIdentity:
    fields = {"access_key_id": "AKID", "secret_access_key": "base-secret", "role_arn": ROLE}
    fields |= {"sts_endpoint_url": endpoint.url, **changes}
    return AwsIdentity("eu-west-1", **fields)


# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html, its example
ASSUMED = """<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <{action}Result>
    <AssumedRoleUser>
      <Arn>arn:aws:sts::123456789012:assumed-role/demo/TestAR</Arn>
      <AssumedRoleId>ARO123EXAMPLE123:TestAR</AssumedRoleId>
    </AssumedRoleUser>
    <Credentials>
      <AccessKeyId>ASIAROLE</AccessKeyId>
      <SecretAccessKey>role-secret</SecretAccessKey>
      <SessionToken>role-session</SessionToken>
      <Expiration>{expiration}</Expiration>
    </Credentials>
  </{action}Result>
  <ResponseMetadata><RequestId>c6104cbe</RequestId></ResponseMetadata>
</{action}Response>"""

REFUSED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you, base-secret</Message></Error>
  <RequestId>8c2b</RequestId>
</ErrorResponse>"""


def assumed(clock: Clock, action: str = "AssumeRole", lifetime: float = 3600) -> str:
    return ASSUMED.format(action=action, expiration=iso(clock() + lifetime))


def signature_by_botocore(seen: Seen, keys: Credentials, region: str) -> str:
    """The signature of a request that arrived, made again."""
    named = seen.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name: seen.headers[name] for name in named}
    url = f"http://{seen.headers['host']}{seen.target}"
    request = AWSRequest(seen.method, url, headers, seen.body)
    request.context["timestamp"] = seen.headers["x-amz-date"]
    signer = SigV4Auth(keys, "sts", region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


async def test_configured_keys_are_used_without_a_request(clock: Clock) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}
    given = AwsIdentity("eu-west-1", "AKID", "secret")
    async with opened(clock, environ) as tokens:
        assert tokens.ready(given) == AwsCredentials("AKID", "secret")
        assert await tokens.get(given) == AwsCredentials("AKID", "secret")


async def test_keys_of_the_environment_come_next(clock: Clock) -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "ENV",
        "AWS_SECRET_ACCESS_KEY": "env-secret",
        "AWS_SESSION_TOKEN": "env-session",
    }
    async with opened(clock, environ) as tokens:
        assert tokens.ready(CHAIN) == AwsCredentials("ENV", "env-secret", "env-session")


async def test_a_bearer_key_is_its_own_token(clock: Clock) -> None:
    async with opened(clock, {}) as tokens:
        assert tokens.ready(BearerKey("key")) == BearerToken("key")


async def test_keys_that_are_given_never_import_botocore(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    async with opened(clock, {}) as tokens:
        assert await tokens.get(AwsIdentity("eu-west-1", "AKID", "secret"))


async def test_without_botocore_the_command_that_installs_it_is_named(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    async with opened(clock, {}) as tokens:
        with pytest.raises(TokenError, match=r"pip install 'kong-ai-proxy\[aws\]'"):
            await tokens.get(CHAIN)


async def test_a_profile_is_found(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = d\n"
        "[mine]\naws_access_key_id = M\naws_secret_access_key = mine-secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    async with opened(clock) as tokens:
        assert await tokens.get(CHAIN) == AwsCredentials("M", "mine-secret")


async def test_a_profile_that_is_not_there_is_named(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    async with opened(clock) as tokens:
        with pytest.raises(TokenError, match="nowhere"):
            await tokens.get(CHAIN)


def container_answer(clock: Clock, name: str) -> dict[str, str]:
    return {
        "AccessKeyId": name,
        "SecretAccessKey": f"{name}-secret",
        "Token": f"{name}-session",
        "Expiration": iso(clock() + 3600),
    }


async def test_a_container_of_ecs_or_a_pod_of_eks_asks_its_agent(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
    endpoint.json("GET /v1/credentials", container_answer(clock, "ECS"))
    async with opened(clock) as tokens:
        found = await tokens.get(CHAIN)
    assert found == AwsCredentials("ECS", "ECS-secret", "ECS-session", float(int(clock()) + 3600))
    assert endpoint.seen[0].headers["authorization"] == "container-token"


def metadata_of_ec2(endpoint: Endpoint, clock: Clock, versions: tuple[int, ...]) -> None:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html"""
    roles = "/latest/meta-data/iam/security-credentials/"

    def guarded(text: str) -> Callable[[Seen], web.Response]:
        def answer(seen: Seen) -> web.Response:
            allowed = 1 in versions or seen.headers.get("x-aws-ec2-metadata-token") == "imds"
            return web.Response(text=text if allowed else "", status=200 if allowed else 401)

        return answer

    if 2 in versions:
        endpoint.text("PUT /latest/api/token", "imds")
    endpoint.answers[f"GET {roles}"] = guarded("demo")
    keys = {"Code": "Success", "Type": "AWS-HMAC", **container_answer(clock, "EC2")}
    endpoint.answers[f"GET {roles}demo"] = guarded(json.dumps(keys))


@pytest.mark.parametrize("versions", [(1,), (2,)])
async def test_a_machine_of_ec2_asks_its_metadata_service(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, versions: tuple[int, ...]
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.url)
    metadata_of_ec2(endpoint, clock, versions)
    async with opened(clock) as tokens:
        found = await tokens.get(CHAIN)
    assert found[:3] == ("EC2", "EC2-secret", "EC2-session")
    assert found.expires_at == int(clock()) + 3600


async def test_a_pod_with_a_service_account_trades_its_token(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("kubernetes-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
    endpoint.text("POST /", assumed(clock, "AssumeRoleWithWebIdentity"))
    async with opened(clock) as tokens:
        found = await tokens.get(CHAIN)
    assert found[:3] == ("ASIAROLE", "role-secret", "role-session")
    assert found.expires_at == int(clock() + 3600)
    assert endpoint.seen[0].form["WebIdentityToken"] == "kubernetes-token"
    assert len(endpoint.seen) == 1


async def test_the_environment_is_before_the_profile_and_that_before_containers(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = P\naws_secret_access_key = p\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/v1/credentials")
    endpoint.json("GET /v1/credentials", container_answer(clock, "ECS"))
    async with opened(clock) as tokens:
        assert (await tokens.get(CHAIN))[0] == "P"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "E")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "e")
    async with opened(clock) as tokens:
        assert (await tokens.get(CHAIN))[0] == "E"
    assert endpoint.seen == []


async def test_nothing_found_says_where_was_looked(clock: Clock) -> None:
    async with opened(clock) as tokens:
        with pytest.raises(TokenError) as caught:
            await tokens.get(CHAIN)
    assert str(caught.value) == aws.NONE_FOUND


async def test_what_a_credential_process_says_is_not_quoted(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    file = tmp_path / "config"
    command = f"{sys.executable} -c \"import sys; sys.exit('process-secret')\""
    file.write_text(f"[default]\ncredential_process = {command}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    async with opened(clock) as tokens:
        with pytest.raises(TokenError, match="CredentialRetrievalError") as caught:
            await tokens.get(CHAIN)
    assert "process-secret" not in f"{caught.value!r} {caplog.text}"


async def test_a_role_is_assumed_with_a_request_that_botocore_signs_alike(
    clock: Clock, endpoint: Endpoint
) -> None:
    endpoint.text("POST /", assumed(clock))
    async with opened(clock, {}) as tokens:
        found = await tokens.get(role(endpoint, role_session_name="TestAR"))
    assert found == AwsCredentials(
        "ASIAROLE", "role-secret", "role-session", float(int(clock() + 3600))
    )
    (seen,) = endpoint.seen
    assert seen.form == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": "TestAR",
    }
    expected = signature_by_botocore(seen, Credentials("AKID", "base-secret"), "eu-west-1")
    assert seen.headers["authorization"].endswith(f"Signature={expected}")


async def test_the_request_for_a_role_fits_botocores_model(
    clock: Clock, endpoint: Endpoint
) -> None:
    endpoint.text("POST /", assumed(clock))
    async with opened(clock, {}) as tokens:
        await tokens.get(role(endpoint))
    model = botocore.session.Session().get_service_model("sts")
    form = endpoint.seen[0].form
    assert form.pop("Version") == model.api_version
    shape = model.operation_model(form.pop("Action")).input_shape
    assert not ParamValidator().validate(form, shape).has_errors()


async def test_a_role_on_top_of_the_chain_is_signed_with_what_the_chain_found(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/v1/credentials")
    endpoint.json("GET /v1/credentials", container_answer(clock, "ECS"))
    endpoint.text("POST /", assumed(clock))
    chained = AwsIdentity("eu-west-1", role_arn=ROLE, sts_endpoint_url=endpoint.url)
    async with opened(clock) as tokens:
        assert (await tokens.get(chained))[0] == "ASIAROLE"
    seen = endpoint.seen[-1]
    assert "Credential=ECS/" in seen.headers["authorization"]
    assert seen.headers["x-amz-security-token"] == "ECS-session"
    keys = Credentials("ECS", "ECS-secret", "ECS-session")
    assert seen.headers["authorization"].endswith(signature_by_botocore(seen, keys, "eu-west-1"))


async def test_two_roles_share_the_credentials_they_are_assumed_with(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/v1/credentials")
    endpoint.json("GET /v1/credentials", container_answer(clock, "ECS"))
    endpoint.text("POST /", assumed(clock))
    async with opened(clock) as tokens:
        for name in ("one", "two"):
            await tokens.get(AwsIdentity("eu-west-1", role_arn=name, sts_endpoint_url=endpoint.url))
    assert [seen.method for seen in endpoint.seen] == ["GET", "POST", "POST"]


async def test_a_refused_role_gives_the_code_and_not_the_text(
    clock: Clock, endpoint: Endpoint
) -> None:
    endpoint.text("POST /", REFUSED, 403)
    async with opened(clock, {}) as tokens:
        with pytest.raises(TokenError) as caught:
            await tokens.get(role(endpoint))
    assert str(caught.value) == "AWS STS at 127.0.0.1 answered 403 AccessDenied to AssumeRole"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("not xml", "without XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "without XML"),
        ("<x/>", "without credentials"),
        (ASSUMED.format(action="AssumeRole", expiration="soon"), "without credentials"),
        ("<x>" + "y" * 300_000 + "</x>", "no usable answer"),
    ],
)
async def test_an_answer_that_is_none_is_an_error(
    clock: Clock, endpoint: Endpoint, answer: str, message: str
) -> None:
    endpoint.text("POST /", answer)
    async with opened(clock, {}) as tokens:
        with pytest.raises(TokenError, match=message):
            await tokens.get(role(endpoint))


async def test_an_sts_that_is_not_there_is_named(clock: Clock) -> None:
    gone = Endpoint()
    async with gone:
        identity = role(gone)
    async with opened(clock, {}) as tokens:
        with pytest.raises(TokenError, match=r"^127\.0\.0\.1: cannot connect: "):
            await tokens.get(identity)


async def test_a_role_is_assumed_again_before_it_ends(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.text("POST /", assumed(clock, lifetime=900))
    async with opened(clock, {}) as tokens:
        identity = role(endpoint)
        first = await tokens.get(identity)
        clock.advance(899)
        endpoint.text("POST /", assumed(clock))
        second = await tokens.get(identity)
    assert first.expires_at != second.expires_at
    assert len(endpoint.seen) == 2


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("sts.us-west-2.amazonaws.com", "us-west-2"),
        ("sts-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-1-abc.sts.us-east-2.vpce.amazonaws.com", "us-east-2"),
        ("sts.amazonaws.com", "us-east-1"),
        ("sts.internal.example", "eu-west-1"),
    ],
)
def test_a_signature_is_for_the_region_that_the_endpoint_names(host: str, region: str) -> None:
    assert aws._signing_region(host, "eu-west-1") == region


def test_the_sts_of_every_partition_is_where_botocore_has_it() -> None:
    session = botocore.session.Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("sts", partition)[-1:]:
            client = session.create_client("sts", region)
            assert f"https://{aws.sts_host(region)}" == client.meta.endpoint_url
