"""Which model a request may ask for, and what the provider is told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.config import parse
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.plan import Plan
from tests.unit.exchange.exchanges import CHAT, ai_proxy, model, request, send, sent_body

Json = dict[str, Any]


def refusal(configuration: Json, body: Json, **fields: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        send(configuration, body, **fields)
    return refused.value


def test_a_body_that_names_the_configured_model_goes_on_untouched() -> None:
    assert send(ai_proxy(), {**CHAT, "model": "gpt-4o"}).body is None


@pytest.mark.parametrize("absent", [{}, {"model": None}, {"model": ""}])
def test_the_configured_model_is_filled_in(absent: Json) -> None:
    assert sent_body(send(ai_proxy(), {**CHAT, **absent}))["model"] == "gpt-4o"


def test_a_foreign_model_is_refused() -> None:
    error = refusal(ai_proxy(), {**CHAT, "model": "gpt-3"})
    assert (error.status, error.message) == (400, "cannot use own model - must be: gpt-4o")


def test_without_a_configured_model_the_client_chooses() -> None:
    upstream = send(ai_proxy(model=model(None)), {**CHAT, "model": "gpt-3"})
    assert upstream.body is None
    assert upstream.response_headers["x-kong-llm-model"] == "openai/gpt-3"


def test_without_any_model_the_request_is_refused() -> None:
    error = refusal(ai_proxy(model=model(None)), CHAT)
    assert error.status == 400
    assert error.message == ("model parameter not found in request, nor in gateway configuration")


def test_an_alias_becomes_the_models_name() -> None:
    upstream = send(ai_proxy(model=model("gpt-4o", "fast")), {**CHAT, "model": "fast"})
    assert sent_body(upstream)["model"] == "gpt-4o"
    assert upstream.response_headers["x-kong-llm-model"] == "openai/gpt-4o"


def test_an_unknown_name_is_refused_where_every_target_has_an_alias() -> None:
    error = refusal(ai_proxy(model=model("gpt-4o", "fast")), {**CHAT, "model": "slow"})
    assert (error.status, error.message) == (400, "model not configured")


def targets(*models: Json) -> Json:
    target = {"route_type": "llm/v1/chat"}
    return {"targets": [{**target, "model": each} for each in models]}


def test_an_alias_chooses_its_target() -> None:
    configuration = targets(model("gpt-4o", "big"), model("gpt-4o-mini", "small"))
    for alias, name in (("big", "gpt-4o"), ("small", "gpt-4o-mini")):
        upstream = send(configuration, {**CHAT, "model": alias}, "ai-proxy-advanced")
        assert sent_body(upstream)["model"] == name


def test_a_request_without_a_model_may_go_to_any_target() -> None:
    configuration = targets(model("gpt-4o", "big"), model("gpt-4o-mini", "small"))
    plan = Plan(parse("ai-proxy-advanced", configuration))
    raw = orjson.dumps(CHAT)
    assert plan.ask(request(raw), raw).candidates == (0, 1)


def test_the_model_header_can_be_turned_off_and_asked_for() -> None:
    quiet = ai_proxy(model_name_header=False)
    assert send(quiet).response_headers == {}
    asked = send(quiet, headers={"kong-debug": "1"})
    assert asked.response_headers == {"x-kong-llm-model": "openai/gpt-4o"}


def test_a_clients_model_cannot_break_the_answers_head() -> None:
    upstream = send(ai_proxy(model=model(None)), {**CHAT, "model": "a\r\nset-cookie: é"})
    assert upstream.response_headers["x-kong-llm-model"] == "openai/a%0D%0Aset-cookie:%20%C3%A9"
