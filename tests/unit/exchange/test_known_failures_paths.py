"""Case 20 of the known failures: names of models, deployments and batches that would lead a request
elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import pytest

from kong_ai_proxy.exchange.errors import Refused
from tests.integration.known_text_vendors import VENDORS, Vendor
from tests.unit.exchange.known_text_exchange import Exchange, Json, attempted, exchanged, refusal

HELLO: Json = {"messages": [{"role": "user", "content": "Hello"}]}

UNSAFE = [
    "..",
    "../../admin",
    "a/../../b",
    "x/..",
    "a\\..\\b",
    "..%2f..%2fadmin",
    "%2e%2e/%2e%2e",
    "a?alt=json&key=x",
    "a#b",
    "a;b",
    "http://elsewhere.example/x",
    "//elsewhere.example/",
    "a b",
    "a\r\nx-more: 1",
    "caf\u00e9",
    "x" * 3000,
]
"""What clients may try to have in a path."""

# Where a provider has a name in its path, and what of it.
IN_PATH: Mapping[str, str] = {
    "bedrock": "name",
    "gemini": "name",
    "vertex": "name",
    "azure": "azure_deployment_id",
}


def segments(path: str) -> list[str]:
    return path.split("/")


def assert_stays(vendor: Vendor, body: Json, **more: Any) -> None:
    """That a request is refused with 400, or goes to the path of a harmless name but for one
    segment, which is still one for those who decode it first."""
    usual = Exchange(vendor, HELLO)
    exchange = attempted(vendor, body, **more)
    if isinstance(exchange, Refused):
        assert exchange.status == 400
        return
    place, sent = exchange.upstream.address, exchange.sent
    assert place[:3] == usual.upstream.address[:3]
    assert sent.query == usual.sent.query
    assert len(segments(sent.path)) == len(segments(usual.sent.path))
    assert sent.path.isascii()
    assert not set(sent.path) & set(" ?#\\\r\n;")
    assert not {".", ".."} & set(re.split(r"[/\\:]", unquote(sent.path)))
    assert "x-more" not in sent.headers


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
def test_a_clients_model_does_not_change_the_path(vendor: Vendor) -> None:
    """Names with `../` changed it (Kong Gateway 3.13.0.8)."""
    for name in UNSAFE:
        assert_stays(vendor, {**HELLO, "model": name}, name=None)


@pytest.mark.parametrize("provider", IN_PATH)
def test_a_template_does_not_change_the_path(provider: str) -> None:
    member, template = IN_PATH[provider], "$(headers.x-model)"
    own: Json = {"name": template} if member == "name" else {"options": {member: template}}
    for name in UNSAFE:
        assert_stays(VENDORS[provider], HELLO, headers={"x-model": name}, **own)


@pytest.mark.parametrize("name", [quote(name, safe="") for name in UNSAFE] + UNSAFE[:6])
def test_a_native_path_does_not_lead_elsewhere(name: str) -> None:
    """The same of paths that clients write themselves, encoded or not."""
    text = [{"text": "Hello"}]
    for llm_format, path, body in (
        ("bedrock", f"/model/{name}/converse", {"messages": [{"role": "user", "content": text}]}),
        (
            "gemini",
            f"/v1beta/models/{name}:generateContent",
            {"contents": [{"role": "user", "parts": text}]},
        ),
    ):
        vendor = VENDORS[llm_format]
        exchange = attempted(vendor, body, llm_format=llm_format, path=path, name=None)
        if isinstance(exchange, Refused):
            assert exchange.status in (400, 404)
            continue
        sent = exchange.sent
        assert len(segments(sent.path)) == len(segments(Exchange(vendor, HELLO).sent.path))
        assert not {".", ".."} & set(re.split(r"[/\\:]", unquote(sent.path)))


ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"


@pytest.mark.parametrize("client", ["body", "configuration", "path", "encoded path"])
def test_an_arn_is_one_segment_of_the_path(client: str) -> None:
    """Kong Gateway 3.11 and 3.14.0.8; botocore, which made the expected path, does the same."""
    vendor, path = VENDORS["bedrock"], "/chat"
    body: Json = HELLO
    more: Json = {"name": ARN if client == "configuration" else None}
    if client == "body":
        body = {**HELLO, "model": ARN}
    elif client != "configuration":
        body = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
        path = f"/model/{ARN if client == 'path' else quote(ARN, safe='')}/converse"
        more["llm_format"] = "bedrock"
    sent, client_side = exchanged(vendor, body, path=path, **more)
    assert sent.path == f"/model/{quote(ARN, safe='')}/converse"
    assert client_side.status == 200


@pytest.mark.parametrize(
    "rest", ["/../../secrets", "/%2e%2e/x", "/a/b/c", "/msgbatch_1/../..", "/msgbatch_1%2F.."]
)
def test_the_id_of_a_batch_does_not_lead_elsewhere(rest: str) -> None:
    """Kong Gateway 3.13.0.8."""
    path = f"/v1/messages/batches{rest}"
    refused = refusal(VENDORS["anthropic"], None, path=path, llm_format="anthropic", method="GET")
    assert refused.status in (400, 404)
