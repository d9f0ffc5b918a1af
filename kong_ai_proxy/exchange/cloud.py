"""As whom a target's cloud is called."""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.auth import sigv4
from kong_ai_proxy.auth.identity import AwsIdentity, Identity, identity, missing_extra, region
from kong_ai_proxy.auth.sign import AuthError
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.config import Auth, Model
from kong_ai_proxy.exchange.address import DEFAULT_PORTS
from kong_ai_proxy.exchange.errors import SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import NOTHING, Address, Env


def uses_identity(model: Model, auth: Auth) -> bool:
    """Whether an identity may sign, or bring a token: then only the relay can send."""
    has_bearer = (auth.header_name or "").lower() == "authorization"
    return (
        (model.provider == "bedrock" and not has_bearer)
        or (model.provider == "gemini" and auth.gcp_use_service_account)
        or (model.provider == "azure" and auth.azure_use_managed_identity)
    )


def identity_of(model: Model, auth: Auth, environ: Mapping[str, str]) -> Identity | None:
    """The identity; None where the configured header or parameter says it all. Raises Refused."""
    try:
        return identity(model.provider, auth, model.options, environ)
    except AuthError as error:
        raise Refused(SERVER_ERROR, str(error)) from None


def check_extra(model: Model, auth: Auth, environ: Mapping[str, str]) -> None:
    """Raise Refused where credentials cannot be had without a library that is not installed."""
    found = identity_of(model, auth, environ)
    missing = missing_extra(found, environ) if found else None
    if missing:
        raise Refused(SERVER_ERROR, missing)


def with_region(model: Model, environ: Mapping[str, str]) -> Model:
    """The model with the AWS region of the environment, where it needs one. Raises Refused."""
    own = model.options.bedrock
    if model.provider != "bedrock" or own.aws_region or model.options.upstream_url:
        return model
    try:
        found = region(None, environ)
    except AuthError as error:
        raise Refused(SERVER_ERROR, str(error)) from None
    bedrock = own.model_copy(update={"aws_region": found})
    options = model.options.model_copy(update={"bedrock": bedrock})
    return model.model_copy(update={"options": options})


def signature(
    identity: Identity | None,
    env: Env,
    method: str,
    place: Address,
    body: bytes,
    headers: Mapping[str, str] = NOTHING,
    service: str = "bedrock",
) -> dict[str, str]:
    """The headers that sign a request to AWS; nothing for another identity. `headers` are signed
    too. Raises Refused (500)."""
    if not isinstance(identity, AwsIdentity):
        return {}
    if not isinstance(env.credential, AwsCredentials):
        raise Refused(SERVER_ERROR, "LLM request failed before proxying")
    default = DEFAULT_PORTS[place.scheme] == place.port
    return sigv4.sign(
        method=method,
        host=place.host if default else f"{place.host}:{place.port}",
        path=place.path,
        query=place.query,
        headers=headers,
        body=body,
        credentials=env.credential,
        region=identity.region,
        service=service,
        now=env.now,
    )
