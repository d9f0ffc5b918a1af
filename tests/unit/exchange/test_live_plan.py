"""Which way a session of Gemini Live goes, and where to."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest, Env
from kong_ai_proxy.exchange.plan import Plan

WS = "/ws/google.ai.generativelanguage."
PUBLIC = WS + "v1beta.GenerativeService.BidiGenerateContent"
MUSIC = WS + "v1alpha.GenerativeService.BidiGenerateMusic"
VERTEX = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
PLACE = {
    "api_endpoint": "us-central1-aiplatform.googleapis.com",
    "project_id": "acme",
    "location_id": "us-central1",
}
HANDSHAKE = {"connection": ("Upgrade",), "upgrade": ("websocket",)}


def plan(
    model: dict[str, Any] | None = None, *, vertex: bool = False, fmt: str = "gemini", **more: Any
) -> Plan:
    options = {"options": {"gemini": PLACE}} if vertex else {}
    found = {
        "llm_format": fmt,
        "route_type": "realtime/v1/realtime",
        "auth": {"header_name": "x-goog-api-key", "header_value": "operators"},
        "model": {"provider": "gemini", **options, **(model or {})},
        **more,
    }
    return Plan(config.parse("ai-proxy", found))


def handshake(path: str = "/live" + PUBLIC, query: str = "") -> ClientRequest:
    return ClientRequest("GET", path, query, HANDSHAKE)


def sent(plan: Plan, request: ClientRequest) -> Any:
    plan.check_head(request)
    return plan.attempt(request, None).start(Env())


@pytest.mark.parametrize(
    ("model", "vertex", "more", "relayed"),
    [
        ({}, False, {}, False),
        ({"name": "live"}, False, {}, True),
        ({"name": "live", "model_alias": "fast"}, False, {}, True),
        ({}, True, {}, True),
        ({}, False, {"logging": {"log_statistics": True}}, True),
        ({}, False, {"logging": {"log_payloads": True}}, True),
    ],
)
def test_the_relay_carries_what_has_to_be_looked_at(
    model: dict[str, Any], vertex: bool, more: dict[str, Any], relayed: bool
) -> None:
    assert plan(model, vertex=vertex, **more).needs_relay(handshake()) == relayed


@pytest.mark.parametrize(
    ("path", "vertex", "expected"),
    [
        ("/live" + PUBLIC, False, PUBLIC),
        ("/live", False, PUBLIC),
        ("/live" + PUBLIC.replace("v1beta", "v1alpha"), False, PUBLIC.replace("v1beta", "v1alpha")),
        ("/live" + PUBLIC.replace("v1beta", "v1"), False, PUBLIC.replace("v1beta", "v1")),
        ("/live" + PUBLIC + "Constrained", False, PUBLIC + "Constrained"),
        ("/live" + PUBLIC.replace("v1beta", "v2"), False, PUBLIC.replace("v1beta", "v2")),
        ("/live" + PUBLIC.replace("v1beta", "x"), False, PUBLIC),
        ("/live" + MUSIC, False, MUSIC),
        ("/live" + VERTEX, False, PUBLIC),
        ("/live" + VERTEX, True, VERTEX),
        ("/live" + VERTEX.replace("v1beta1", "v1"), True, VERTEX.replace("v1beta1", "v1")),
        ("/live" + PUBLIC, True, VERTEX),
        ("/live", True, VERTEX),
    ],
)
def test_where_a_session_goes(path: str, vertex: bool, expected: str) -> None:
    place = sent(plan(vertex=vertex), handshake(path)).address
    host = PLACE["api_endpoint"] if vertex else "generativelanguage.googleapis.com"
    assert (place.scheme, place.host, place.path, place.query) == ("https", host, expected, "")


@pytest.mark.parametrize(
    ("path", "vertex"),
    [
        (PUBLIC.replace("Bidi", "Other"), False),
        (MUSIC, True),
        (PUBLIC + "Constrained", True),
        (VERTEX.replace("/Bidi", "/Other"), True),
    ],
)
def test_a_session_of_another_kind_is_not_made_one_that_is_known(path: str, vertex: bool) -> None:
    with pytest.raises(Refused, match="expected a session of BidiGenerateContent") as raised:
        sent(plan(vertex=vertex), handshake("/live" + path))
    assert raised.value.status == 400


def test_the_clients_credentials_stay_and_the_operators_go() -> None:
    request = handshake(query="key=clients&alt=x&access_token=t")
    request = request._replace(headers={**HANDSHAKE, "x-goog-api-key": ("clients",)})
    found = sent(plan(), request)
    assert found.address.query == "alt=x"
    assert found.set_headers["x-goog-api-key"] == "operators"
    assert found.method == "GET"


def test_a_model_in_the_query_chooses_a_target_and_goes_no_further() -> None:
    wanted = plan({"name": "live", "model_alias": "fast"})
    assert sent(wanted, handshake(query="model=fast&x=1")).address.query == "x=1"
    with pytest.raises(Refused, match="model not configured"):
        sent(wanted, handshake(query="model=other"))


WHERE = "projects/acme/locations/us-central1"


@pytest.mark.parametrize(
    ("model", "vertex", "expected"),
    [
        ({"name": "live"}, False, "models/live"),
        ({"name": "tunedModels/mine"}, False, "tunedModels/mine"),
        ({"name": "live"}, True, f"{WHERE}/publishers/google/models/live"),
        ({"name": "live", "options": {"gemini": {**PLACE, "endpoint_id": "7"}}}, True,
         f"{WHERE}/endpoints/7"),
    ],
)  # fmt: skip
def test_how_the_provider_calls_the_model(
    model: dict[str, Any], vertex: bool, expected: str
) -> None:
    change = plan(model, vertex=vertex).attempt(handshake(), None).change_message
    assert change is not None
    assert change('{"setup":{}}') == f'{{"setup":{{"model":"{expected}"}}}}'


def test_a_request_that_is_no_handshake_is_told_to_upgrade() -> None:
    with pytest.raises(Refused) as raised:
        plan().check_head(ClientRequest("GET", "/live" + PUBLIC))
    assert raised.value.status == 426


@pytest.mark.parametrize("path", ["/live/../x" + PUBLIC, "/live/%2e%2e" + PUBLIC])
def test_a_path_that_climbs_is_refused(path: str) -> None:
    with pytest.raises(Refused):
        sent(plan(), handshake(path))


@pytest.mark.parametrize(
    ("fmt", "provider"),
    [("openai", "gemini"), ("gemini", "openai"), ("gemini", "azure"), ("anthropic", "openai")],
)
def test_a_session_is_not_converted(fmt: str, provider: str) -> None:
    options = {"azure": {"azure_instance": "a", "azure_deployment_id": "b"}}.get(provider, {})
    model = {"provider": provider, "options": options}
    with pytest.raises(Refused) as raised:
        sent(plan(model, fmt=fmt), handshake())
    assert raised.value.status == 404


def test_the_operation_of_a_session_is_none_of_a_plain_request() -> None:
    wanted = plan(route_type="llm/v1/chat")
    path = "/v1beta/models/gemini-live:BidiGenerateContent"
    request = ClientRequest("POST", path, headers={"content-type": ("application/json",)})
    with pytest.raises(Refused) as raised:
        wanted.attempt(request, b"{}").start(Env())
    assert raised.value.status == 404
