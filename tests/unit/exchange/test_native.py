"""Clients and providers of one format, which is not OpenAI's: the body stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from anthropic.types.shared import ErrorResponse

from kong_ai_proxy.exchange.errors import Refused
from tests.integration.known_text_clients import CLIENTS
from tests.integration.known_text_vendors import VENDORS
from tests.providers import Turn
from tests.unit.exchange.known_text_exchange import Exchange, Json, exchanged, refusal

NATIVE = ("anthropic", "bedrock", "gemini", "cohere")
HELLO: Json = {"messages": [{"role": "user", "content": "Hello"}]}


def native(name: str, body: Json | bytes | None, path: str, **more: Any) -> Exchange:
    """A request in the format of the provider of that name."""
    return Exchange(VENDORS[name], body, path=path, llm_format=name, **more)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_body_and_answer_pass_byte_for_byte(name: str, stream: bool) -> None:
    """Unknown members, blanks and numbers as they were written."""
    vendor, client = VENDORS[name], CLIENTS[name]
    path, body = client.request(vendor, stream)
    body |= {"model": vendor.model} if name == "anthropic" else {}
    raw = orjson.dumps(body, option=orjson.OPT_INDENT_2)[:-2] + b',\n "unheard_of" : 1.50e1 }\n'
    path, _, query = path.partition("?")
    exchange = native(name, raw, path, query=query)
    assert exchange.sent.body == raw
    turn = Turn(text="One two.")
    reply = native(name, body, path, query=query).judged(vendor, turn)
    answer = b"".join(reply.frames) if reply.frames is not None else reply.body
    found = exchange.answered(reply)
    assert found.body == answer
    assert found.headers["content-type"] == reply.content_type
    assert exchange.attempt.usage is not None
    assert exchange.attempt.usage.total_tokens == 18


def test_the_model_is_all_that_changes_where_an_alias_is_said() -> None:
    """Kong Gateway 3.14.0.7."""
    for name, more in (("anthropic", {"max_tokens": 9}), ("cohere", {})):
        vendor = VENDORS[name]
        path = CLIENTS[name].request(vendor, stream=False)[0]
        raw = orjson.dumps({"model": "mine", **HELLO, **more, "unheard_of": [1.0, {}]})
        configured = vendor.config(None)["model"] | {"model_alias": "mine"}
        exchange = native(name, raw, path, model=configured)
        assert exchange.sent.json == {**orjson.loads(raw), "model": vendor.model}
        assert b'"unheard_of":[1.0,{}]' in exchange.sent.body


@pytest.mark.parametrize("name", ["bedrock", "gemini"])
def test_an_alias_in_the_path_becomes_the_model(name: str) -> None:
    vendor = VENDORS[name]
    path, body = CLIENTS[name].request(vendor, stream=False)
    real = path.partition("?")[0]
    alias = {"bedrock": "/model/mine/converse", "gemini": "/v1beta/models/mine:generateContent"}
    configured = vendor.config(None)["model"] | {"model_alias": "mine"}
    exchange = native(name, body, alias[name], model=configured)
    assert exchange.sent.path == real
    assert exchange.sent.body == orjson.dumps(body)


# ---- operations that no other format has

RERANK: Json = {"query": "q", "documents": ["a", "b"], "model": VENDORS["cohere"].model}
AGENT = {"input": {"text": "q"}, "retrieveAndGenerateConfiguration": {"type": "EXTERNAL_SOURCES"}}

# https://docs.anthropic.com/en/api, https://docs.cohere.com/reference, https://ai.google.dev/api,
# https://docs.aws.amazon.com/bedrock/latest/APIReference
OPERATIONS: Mapping[str, tuple[str, str, Json, str, str]] = {
    "count_tokens": (
        "anthropic",
        "/v1/messages/count_tokens",
        {"model": VENDORS["anthropic"].model, **HELLO},
        "api.anthropic.com",
        "/v1/messages/count_tokens",
    ),
    "batches": (
        "anthropic",
        "/ai/v1/messages/batches",
        {"requests": []},
        "api.anthropic.com",
        "/v1/messages/batches",
    ),
    "rerank": ("cohere", "/ai/v2/rerank", RERANK, "api.cohere.com", "/v2/rerank"),
    "rerank without a version": ("cohere", "/rerank", RERANK, "api.cohere.com", "/v2/rerank"),
    "Bedrock's rerank": (
        "bedrock",
        "/ai/rerank",
        {"queries": []},
        "bedrock-agent-runtime.us-east-1.amazonaws.com",
        "/rerank",
    ),
    "retrieveAndGenerate": (
        "bedrock",
        "/retrieveAndGenerate",
        AGENT,
        "bedrock-agent-runtime.us-east-1.amazonaws.com",
        "/retrieveAndGenerate",
    ),
    "retrieveAndGenerateStream": (
        "bedrock",
        "/retrieveAndGenerateStream",
        AGENT,
        "bedrock-agent-runtime.us-east-1.amazonaws.com",
        "/retrieveAndGenerateStream",
    ),
    "countTokens": (
        "gemini",
        "/v1beta/models/gemini-2.5-flash:countTokens",
        {"contents": []},
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-flash:countTokens",
    ),
    "InvokeModel": (
        "bedrock",
        "/model/amazon.nova-lite-v1%3A0/invoke",
        {"anything": [1, 2]},
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/amazon.nova-lite-v1%3A0/invoke",
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_native_operation_goes_to_its_place_with_its_body(operation: str) -> None:
    name, path, body, host, place = OPERATIONS[operation]
    exchange = native(name, body, path)
    assert exchange.upstream.address.host == host
    assert exchange.sent.path == place
    assert exchange.sent.body == orjson.dumps(body)


def test_counting_tokens_is_no_chat() -> None:
    """It was sent to the chat route once."""
    path, vendor = "/v1/messages/count_tokens", VENDORS["anthropic"]
    body = {"model": vendor.model, **HELLO}
    sent, client = exchanged(vendor, body, path=path, llm_format="anthropic")
    assert sent.path == path
    assert client.json == {"input_tokens": 11}


FOREIGN = {
    "anthropic": "/v1/messages/count_tokens",
    "bedrock": "/rerank",
    "gemini": "/v1beta/models/any:countTokens",
    "cohere": "/v2/rerank",
}


@pytest.mark.parametrize("llm_format", FOREIGN)
def test_an_operation_that_the_provider_lacks_is_not_found(llm_format: str) -> None:
    """In the client's own words."""
    for vendor in VENDORS.values():
        if vendor.provider == llm_format or (llm_format, vendor.model) in (
            ("anthropic", VENDORS["vertex-claude"].model),
        ):
            continue
        path = FOREIGN[llm_format].replace("any", "gemini")
        body = {"model": vendor.model, **HELLO}
        refused = refusal(vendor, body, path=path, llm_format=llm_format, name=None)
        assert refused.status == 404
        assert vendor.provider in refused.message


# ---- our own errors


@pytest.mark.parametrize("status", [400, 404, 405, 415, 500, 502, 504])
@pytest.mark.parametrize("llm_format", CLIENTS)
def test_a_refusal_of_our_own_has_the_clients_shape(llm_format: str, status: int) -> None:
    client = CLIENTS[llm_format]
    path, body = client.request(VENDORS["openai"], stream=False)
    exchange = Exchange(VENDORS["openai"], body, path=path, llm_format=llm_format)
    refused = Refused(status, "No, n\udcffot so.", {"retry-after": "1"})
    found, data, headers = exchange.plan.answer(refused)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert headers["retry-after"] == "1"
    assert client.error(data) == "No, n\\xffot so."
    if llm_format == "bedrock":
        assert headers["x-amzn-errortype"].endswith("Exception")


def test_anthropics_clients_know_the_type_of_our_errors() -> None:
    """https://docs.anthropic.com/en/api/errors"""
    plan = native("anthropic", {"model": VENDORS["anthropic"].model, **HELLO}, "/v1/messages").plan
    bodies = {status: plan.answer(Refused(status, "no"))[1] for status in (400, 404, 413, 500)}
    assert [orjson.loads(body)["error"]["type"] for body in bodies.values()] == [
        "invalid_request_error",
        "not_found_error",
        "request_too_large",  # which the types of anthropic 2 lack
        "api_error",
    ]
    del bodies[413]
    for body in bodies.values():
        ErrorResponse.model_validate_json(body)


@pytest.mark.parametrize("name", ["bedrock", "gemini"])
def test_a_native_stream_that_is_no_sse_counts_as_a_stream(name: str) -> None:
    """Bedrock's event stream, and Gemini's JSON array."""
    vendor, client = VENDORS[name], CLIENTS[name]
    path, body = client.request(vendor, stream=True)
    exchange = native(name, body, path.partition("?")[0])
    exchange.answered(exchange.judged(vendor))
    assert exchange.attempt.mode == "stream"


@pytest.mark.parametrize("name", ["ollama", "bedrock", "huggingface"])
def test_a_gemini_client_can_name_any_model(name: str) -> None:
    """With colons and slashes, which google-genai does not encode."""
    vendor = VENDORS[name]
    path = f"/v1beta/models/{vendor.model}:generateContent"
    body = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    _, client = exchanged(vendor, body, path=path, llm_format="gemini")
    assert client.json["candidates"][0]["finishReason"] == "STOP"
