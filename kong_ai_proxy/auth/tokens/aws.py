"""Credentials of AWS: botocore's chain, and roles that are assumed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from yarl import URL

from kong_ai_proxy.auth import sigv4
from kong_ai_proxy.auth.identity import MISSING_BOTOCORE, AwsIdentity
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.http import Answer, Http

NONE_FOUND = (
    "no AWS credentials: neither auth.aws_access_key_id and auth.aws_secret_access_key, nor the "
    "variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, nor a profile, nor a role of ECS, "
    "EKS or EC2"
)

OK = 200
_NAMESPACE = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_CODE = re.compile(r"[A-Za-z]{3,60}")
_REGION_IN_HOST = re.compile(r"(?:^|\.)sts(?:-fips)?\.([a-z]+(?:-[a-z]+)+-\d+)\.")
_GLOBAL_STS = "sts.amazonaws.com"

# The partitions of AWS by the beginning of their regions, as in botocore's data/partitions.json.
_DOMAINS = (
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
)


def load_chain(region: str, proxy: str | None) -> AwsCredentials:
    """Credentials from a profile, ECS, EKS or EC2, as botocore finds them in the process's own
    environment. Blocks. Raises TokenError.

    A new session each time, so that changed files are seen; what it keeps is kept by our cache.
    """
    try:
        import botocore.session  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise TokenError(MISSING_BOTOCORE) from None
    _quieten()
    try:
        session = botocore.session.Session()
        session.set_config_variable("region", region)
        session.set_default_client_config(
            Config(
                connect_timeout=5,
                read_timeout=10,
                retries={"total_max_attempts": 2},
                proxies={"https": proxy} if proxy else None,
            )
        )
        found = session.get_credentials()
        return _frozen(found)
    except TokenError:
        raise
    except Exception as error:
        raise TokenError(f"AWS credentials: {_reason(error)}") from None


def _frozen(found: Any) -> AwsCredentials:
    if found is None:
        raise TokenError(NONE_FOUND)
    keys = found.get_frozen_credentials()  # first: it may fetch them, and so learn when they end
    end = getattr(found, "_expiry_time", None)  # botocore has no public name for it
    return AwsCredentials(
        keys.access_key, keys.secret_key, keys.token or None, end.timestamp() if end else None
    )


def _quieten() -> None:
    """botocore logs whole answers at DEBUG, and what a credential_process says at WARNING."""
    logger = logging.getLogger("botocore")
    if logger.level < logging.CRITICAL:
        logger.setLevel(logging.CRITICAL)


def _reason(error: Exception) -> str:
    """What is safe of an error: texts can quote answers or what a credential_process wrote."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        operation = error.operation_name
        return f"{operation} refused{f' ({code})' if _CODE.fullmatch(code) else ''}"
    speaking = (
        exceptions.ProfileNotFound,
        exceptions.PartialCredentialsError,
        exceptions.EndpointConnectionError,
    )
    return str(error) if isinstance(error, speaking) else type(error).__name__


async def assume_role(
    http: Http, identity: AwsIdentity, base: AwsCredentials, now: Callable[[], float]
) -> AwsCredentials:
    """Credentials of the role that `identity` assumes. Raises TokenError.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
    """
    url = URL(identity.sts_endpoint_url or f"https://{sts_host(identity.region)}/")
    form = {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": identity.role_arn or "",
        "RoleSessionName": identity.role_session_name,
    }
    body = urlencode(form).encode()
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    signed = sigv4.sign(
        method="POST",
        host=url.host_port_subcomponent or "",
        path=url.raw_path,
        query=url.raw_query_string,
        headers=headers,
        body=body,
        credentials=base,
        region=_signing_region(url.host or "", identity.region),
        service="sts",
        now=now(),
    )
    return _role(f"AWS STS at {url.host}", await http.send("POST", url, headers | signed, body))


def sts_host(region: str) -> str:
    """The host of a region's STS: https://docs.aws.amazon.com/general/latest/gr/sts.html"""
    domain = next((name for start, name in _DOMAINS if region.startswith(start)), "amazonaws.com")
    return f"sts.{region}.{domain}"


def _signing_region(host: str, region: str) -> str:
    """A regional endpoint wants signatures for its own region, the global one for us-east-1."""
    if host == _GLOBAL_STS:
        return "us-east-1"
    named = _REGION_IN_HOST.search(host)
    return named[1] if named else region


def _role(what: str, answer: Answer) -> AwsCredentials:
    try:
        root = _xml(answer.data)
    except (ElementTree.ParseError, ValueError):
        raise TokenError(f"{what} answered {answer.status} without XML") from None
    if answer.status != OK:
        code = root.findtext(f"{_NAMESPACE}Error/{_NAMESPACE}Code", "")
        known = f" {code}" if _CODE.fullmatch(code) else ""
        raise TokenError(f"{what} answered {answer.status}{known} to AssumeRole")
    found = root.find(f".//{_NAMESPACE}Credentials")
    try:
        if found is None:
            raise ValueError
        key, secret, token, end = (
            found.findtext(_NAMESPACE + name) or ""
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        )
        if not (key and secret and token):
            raise ValueError
        return AwsCredentials(key, secret, token, datetime.fromisoformat(end).timestamp())
    except ValueError:
        raise TokenError(f"{what} answered AssumeRole without credentials") from None


def _xml(data: bytes) -> ElementTree.Element:
    """STS sends no document type; entities, which would be declared there, can be of any size."""
    if b"<!" in data:
        raise ValueError("a document type")
    return ElementTree.fromstring(data)  # noqa: S314 - see above
