"""As whom providers are called in fixtures: what stands in the configuration, or what a cloud's
identity makes of it for the host that is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from kong_ai_proxy.exchange.messages import UpstreamRequest
from tests.golden.fixture import AWS, GOOGLE, NOW

Json = dict[str, Any]

# The region that a request is signed for is its host's, the service the first part of its name:
# https://docs.aws.amazon.com/general/latest/gr/bedrock.html, .../gr/s3.html
_AMAZONS = re.compile(
    r"(?:[a-z0-9-]+\.)?(?P<service>bedrock|s3)(?:-[a-z-]+)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com"
)


def check(config: Json, upstream: UpstreamRequest, told: Mapping[str, object]) -> None:
    """The operator's credential goes up, but where the fixture's headers, `told`, say that it does
    not, as to files that are public."""
    for name, value in _expected(config.get("auth", {}), upstream.address.host).items():
        if name not in told:
            found = upstream.set_headers.get(name, "")
            assert found.startswith(value), f"{name} for {upstream.address.host}"
    _check_query(config.get("auth", {}), upstream)


def _expected(auth: Json, host: str) -> dict[str, str]:
    """Headers, and how they begin."""
    if "header_name" in auth:
        return {auth["header_name"].lower(): auth["header_value"]}
    if auth.get("gcp_use_service_account"):
        return {"authorization": f"Bearer {GOOGLE.token}"}
    if "aws_access_key_id" not in auth:
        return {}
    place = _AMAZONS.fullmatch(host)
    assert place is not None, f"{host}: no host of Bedrock's or S3's"
    day = datetime.fromtimestamp(NOW, UTC).strftime("%Y%m%d")
    scope = f"{AWS.access_key_id}/{day}/{place['region']}/{place['service']}/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, "}


def _check_query(auth: Json, upstream: UpstreamRequest) -> None:
    if auth.get("param_location") == "query":
        asked = parse_qs(upstream.address.query)
        assert asked[auth["param_name"]] == [auth["param_value"]]
