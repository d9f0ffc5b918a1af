"""What a client's handshake says of the session that it wants."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest, Env
from kong_ai_proxy.exchange.plan import Plan

AZURE = {"azure_instance": "acme", "azure_deployment_id": "mine"}


def sent(provider: str, query: str = "", offered: str = "") -> Any:
    found = {
        "route_type": "realtime/v1/realtime",
        "auth": {"header_name": "authorization", "header_value": "operators"},
        "model": {"provider": provider, "options": AZURE if provider == "azure" else {}},
    }
    headers = {"connection": ("Upgrade",), "upgrade": ("websocket",)}
    if offered:
        headers["sec-websocket-protocol"] = (offered,)
    plan = Plan(config.parse("ai-proxy", found))
    request = ClientRequest("GET", "/v1/realtime", query, headers)
    plan.check_head(request)
    return plan.attempt(request, None).start(Env())


@pytest.mark.parametrize(
    ("offered", "path"),
    [
        ("realtime", "/openai/v1/realtime"),
        ("realtime, openai-beta.realtime-v1", "/openai/realtime"),
    ],
)
def test_a_browser_asks_for_the_beta_with_a_subprotocol(offered: str, path: str) -> None:
    """It can send no header: https://platform.openai.com/docs/guides/realtime-websocket."""
    assert sent("azure", offered=offered).address.path == path


@pytest.mark.parametrize("query", ["model=a&model=b", "model=a&Model=b", "model=a;model=b"])
def test_a_session_has_one_model(query: str) -> None:
    with pytest.raises(Refused, match="'model' once in the query") as raised:
        sent("openai", query)
    assert raised.value.status == 400
