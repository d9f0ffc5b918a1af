"""What changes in a body on its way to OpenAI, and which bodies do not get there."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.plan import Plan
from tests.unit.exchange.exchanges import CHAT, ai_proxy, model, request, send, sent_body

Json = dict[str, Any]
NAMED: Json = {**CHAT, "model": "gpt-4o"}


def test_the_client_wins_over_configured_defaults() -> None:
    configuration = ai_proxy(model=model(temperature=0.1, top_p=0.2, max_tokens=3))
    body = {**NAMED, "temperature": 1, "top_p": 0.9}
    assert sent_body(send(configuration, body)) == {**body, "max_tokens": 3}


def test_defaults_fill_what_the_client_left_open() -> None:
    configuration = ai_proxy(model=model(temperature=0.1, top_p=0.2, max_tokens=3))
    assert sent_body(send(configuration, NAMED)) == {
        **NAMED,
        "temperature": 0.1,
        "top_p": 0.2,
        "max_tokens": 3,
    }


@pytest.mark.parametrize("name", ["o1", "o3-mini", "o4-mini-2025", "gpt-5", "gpt-5-mini"])
def test_reasoning_models_get_the_limit_under_their_own_name(name: str) -> None:
    configuration = ai_proxy(model=model(name, max_tokens=9))
    assert sent_body(send(configuration, CHAT))["max_completion_tokens"] == 9
    renamed = sent_body(send(configuration, {**CHAT, "max_tokens": 4}))
    assert renamed["max_completion_tokens"] == 4
    assert "max_tokens" not in renamed


def test_a_limit_under_the_new_name_keeps_the_default_out() -> None:
    configuration = ai_proxy(model=model(max_tokens=9))
    assert send(configuration, {**NAMED, "max_completion_tokens": 4}).body is None


def test_what_openai_refuses_is_dropped_and_reported() -> None:
    upstream = send(ai_proxy(), {**NAMED, "top_k": 5})
    assert sent_body(upstream) == NAMED
    assert upstream.response_headers["x-kong-ai-dropped-params"] == "top_k"


def test_a_compatible_server_gets_what_openai_refuses() -> None:
    configuration = ai_proxy(model=model(upstream_url="http://vllm:8000/v1/chat/completions"))
    assert send(configuration, {**NAMED, "top_k": 5}).body is None


def test_embeddings_get_their_size_and_no_sampling() -> None:
    configuration = ai_proxy(
        route_type="llm/v1/embeddings",
        model=model("text-embedding-3-small", embeddings_dimensions=256, max_tokens=9),
    )
    assert sent_body(send(configuration, {"input": "hi"})) == {
        "input": "hi",
        "model": "text-embedding-3-small",
        "dimensions": 256,
    }


def test_streaming_can_be_forced() -> None:
    configuration = ai_proxy(response_streaming="always")
    assert sent_body(send(configuration, {**NAMED, "stream": False}))["stream"] is True
    assert send(configuration, {**NAMED, "stream": True}).body is None


def test_streaming_can_be_denied() -> None:
    configuration = ai_proxy(response_streaming="deny")
    with pytest.raises(Refused) as refused:
        send(configuration, {**NAMED, "stream": True})
    assert (refused.value.status, refused.value.message) == (
        400,
        "response streaming is not enabled for this LLM",
    )
    assert send(configuration, NAMED).body is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"hello", "not valid JSON"),
        (b'{"messages": "\xff"}', "not valid JSON"),
        (b"[]", "expected a JSON object, got an array"),
        (b"{}", "expected a non-empty array 'messages'"),
        (b'{"model":"a","model":"b","messages":[1]}', "'model' occurs twice"),
    ],
)
def test_a_body_that_is_no_request_is_a_clients_error(body: bytes, says: str) -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(), body)
    assert refused.value.status == 400
    assert refused.value.message.startswith("request body doesn't contain valid prompts: ")
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=utf-7"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "identity, gzip"}, 415),
        ({"connection": "close, content-length"}, 400),
        ({"connection": "authorization"}, 400),
        ({"connection": "upgrade", "upgrade": "websocket"}, 400),
        ({"content-length": "1048577"}, 413),
    ],
)
def test_a_head_that_cannot_be_served_is_refused(headers: Json, status: int) -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(), headers=headers)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json", ""],
)
def test_json_has_several_names(content_type: str) -> None:
    assert send(ai_proxy(), NAMED, headers={"content-type": content_type}).body is None


def test_the_limit_counts_for_bodies_without_a_length_too() -> None:
    headers = {"transfer-encoding": "chunked", "content-length": "0"}
    with pytest.raises(Refused) as refused:
        send(ai_proxy(max_request_body_size=10), NAMED, headers=headers)
    assert (refused.value.status, refused.value.message) == (413, "Request body too large")


def test_no_limit_means_no_limit() -> None:
    body = {**NAMED, "user": "x" * 2_000_000}
    assert send(ai_proxy(max_request_body_size=0), body).body is None


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
def test_a_request_without_a_body_is_not_allowed(method: str) -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(), b"", method=method)
    assert refused.value.status == 405
    assert refused.value.headers == {"allow": "POST"}


def test_head_has_no_answer_to_a_post() -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(), NAMED, method="HEAD")
    assert refused.value.status == 405


def test_two_content_types_are_one_too_many() -> None:
    plan = Plan(config.parse("ai-proxy", ai_proxy()))
    both = ("application/json", "application/x-www-form-urlencoded")
    with pytest.raises(Refused) as refused:
        plan.check_head(request()._replace(headers={**request().headers, "content-type": both}))
    assert refused.value.status == 415


def test_over_http2_a_body_need_not_be_announced() -> None:
    plan = Plan(config.parse("ai-proxy", ai_proxy()))
    unannounced = ClientRequest(method="POST", path="/", headers={"content-type": ("text/plain",)})
    plan.check_head(unannounced)
    with pytest.raises(Refused) as refused:
        plan.attempt(unannounced, b"{}")
    assert refused.value.status == 415


@pytest.mark.parametrize("member", ["Model", "STREAM", "Messages", "Max_Tokens"])
def test_a_member_in_another_case_is_refused(member: str) -> None:
    with pytest.raises(Refused, match=f"unknown member '{member}', did you mean"):
        send(ai_proxy(), {**NAMED, member: "x"})


def test_more_query_parameters_than_anyone_needs_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(), NAMED, query="a&" * 1000)
    assert refused.value.status == 400


def test_a_body_goes_up_as_post_whatever_the_method() -> None:
    assert send(ai_proxy(), NAMED, method="PUT").method == "POST"
