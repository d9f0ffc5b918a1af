"""OpenAI's Responses of providers that only chat, through an attempt."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from kong_ai_proxy import config
from kong_ai_proxy.config.matrix import SUPPORTED
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.formats import openai
from tests.integration.known_text_vendors import VENDORS
from tests.providers import ToolCall, Turn, Usage
from tests.unit.config.test_choices import OPTIONS
from tests.unit.exchange.known_text_exchange import Exchange, Json, at
from tests.unit.exchange.test_capabilities import of_type

CLAUDE = VENDORS["anthropic"]
HELLO: Json = {"input": "Hello, you there"}
STREAM: Json = {**HELLO, "stream": True}
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
SSE = "text/event-stream"
CHATS = [name for name, kinds in SUPPORTED.items() if openai.CHAT in kinds]


def asked(body: Json | None = None, vendor: str = "anthropic", **changes: Any) -> Exchange:
    """A request for a response, up to the provider."""
    changes.setdefault("path", "/v1/responses")
    return Exchange(
        VENDORS[vendor], HELLO if body is None else body, route_type=openai.RESPONSES, **changes
    )


def answered(turn: Turn, body: Json = HELLO, **changes: Any) -> Any:
    exchange = asked(body, **changes)
    return exchange.answered(exchange.judged(CLAUDE, turn))


def refusal(body: Json | None = None, **changes: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        asked(body, **changes)
    return refused.value


def test_every_provider_that_chats_has_responses() -> None:
    assert [name for name in CHATS if openai.RESPONSES not in SUPPORTED[name]] == []


@pytest.mark.parametrize("name", CHATS)
def test_kong_carries_what_is_not_converted(name: str) -> None:
    options = {"azure_api_version": "preview"} if name == "azure" else {}
    model = {"provider": name, "name": "m", "options": {**OPTIONS.get(name, {}), **options}}
    plan = Plan(config.parse("ai-proxy", of_type(openai.RESPONSES, model=model)))
    plan.check_available()
    assert plan.needs_response == (name not in ("azure", "openai", "xai"))


# ---- the request


def test_the_configurations_defaults_are_in_it() -> None:
    exchange = asked(options={"max_tokens": 99, "temperature": 0.5})
    assert exchange.sent.json["max_tokens"] == 99
    assert exchange.sent.json["temperature"] == 0.5


def test_the_requests_own_come_before_them() -> None:
    exchange = asked({**HELLO, "max_output_tokens": 7}, options={"max_tokens": 99})
    assert exchange.sent.json["max_tokens"] == 7


def test_the_path_and_the_headers_are_those_of_a_conversation() -> None:
    sent = asked(path="/ai/v1/responses").sent
    assert sent.path == "/v1/messages"
    assert sent.json["messages"] == [{"role": "user", "content": "Hello, you there"}]


def test_what_the_provider_has_not_is_dropped_by_name() -> None:
    body = {**HELLO, "truncation": "auto", "max_tool_calls": 3, "include": ["x"], "store": False}
    found = answered(Turn(text="One."), body)
    assert found.status == 200
    assert found.dropped == {"truncation", "max_tool_calls", "include"}


def test_a_request_without_a_model_is_refused() -> None:
    refused = refusal(name=None)
    assert (refused.status, "model parameter not found" in refused.message) == (400, True)


def test_another_model_than_the_configured_one_is_refused() -> None:
    refused = refusal({**HELLO, "model": "other"})
    assert refused.status == 400
    assert refused.message.startswith("cannot use own model")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses/resp_1", 404),
        ("DELETE", "/v1/responses/resp_1", 404),
        ("POST", "/v1/responses/resp_1/cancel", 404),
        ("GET", "/v1/responses/resp_1/input_items", 404),
        ("POST", "/v1/responses/compact", 404),
        ("GET", "/v1/responses", 405),
        ("DELETE", "/v1/responses", 405),
        ("GET", "/v1/responses/..%2fmodels", 400),
    ],
)
def test_nothing_is_kept(method: str, path: str, status: int) -> None:
    body = HELLO if method == "POST" else None
    with pytest.raises(Refused) as refused:
        Exchange(CLAUDE, body, route_type=openai.RESPONSES, method=method, path=path)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "body", [{}, {"input": []}, {"input": 3}, {"messages": [{"role": "user", "content": "a"}]}]
)
def test_a_request_without_input_is_refused(body: Json) -> None:
    refused = refusal(body)
    assert (refused.status, refused.message.partition(":")[0]) == (400, "input")


def test_streams_can_be_denied() -> None:
    refused = refusal(STREAM, response_streaming="deny")
    assert refused.message == "response streaming is not enabled for this LLM"


def test_streams_can_be_had_always() -> None:
    exchange = asked(response_streaming="always")
    assert exchange.sent.json["stream"] is True
    found = exchange.answered(exchange.judged(CLAUDE, Turn(text="One two.")))
    assert found.headers["content-type"] == SSE
    assert found.events[-1]["type"] == "response.completed"


# ---- the answer


def test_an_answer_repeats_its_request() -> None:
    body = {**HELLO, "instructions": "Be brief.", "metadata": {"a": "b"}, "top_p": None}
    found = answered(Turn(text="One two."), body).json
    Response.model_validate(found, strict=True)
    assert (found["instructions"], found["metadata"], found["top_p"]) == (
        *("Be brief.", {"a": "b"}, None),
    )
    assert (found["store"], found["background"]) == (False, False)


TURNS = {
    "text": Turn(text="One two three."),
    "calls": Turn(
        text="Let me see.", tool_calls=[ToolCall("add", {"a": 1}), ToolCall("sub", {"b": {}})]
    ),
    "thought": Turn(thinking="Hm, well.", text="One."),
    "cut": Turn(text="One", finish="length"),
    "nothing": Turn(text=""),
}
TOOLS: list[Json] = [
    {"type": "function", "name": name, "parameters": {}} for name in ("add", "sub")
]


def timeless(value: Json) -> Json:
    """An event, or a response, without the second in which it was made."""
    response = {**value.get("response", {}), "created_at": 0}
    return {**value, "created_at": 0, "response": response}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_stream_tells_the_same_as_an_answer_in_one_piece(turn: Turn) -> None:
    whole = answered(turn, {**HELLO, "tools": TOOLS}).json
    streamed = answered(turn, {**STREAM, "tools": TOOLS}).events
    for number, event in enumerate(streamed):
        EVENT.validate_python(event)
        assert event["sequence_number"] == number
    assert timeless(streamed[-1]["response"]) == timeless(whole)


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    exchange = asked(STREAM)
    reply = exchange.judged(CLAUDE, TURNS["thought"])
    data = b"".join(reply.frames or ())
    expected = [timeless(event) for event in asked(STREAM).answered(reply).events]
    for place in range(0, len(data), 7):
        found = asked(STREAM).answered(reply, at(place)).events
        assert [timeless(event) for event in found] == expected


def test_an_error_before_the_first_content_is_a_status() -> None:
    exchange = asked(STREAM)
    turn = Turn(text="One two.", stream_error="Overloaded", error_after=0)
    found = exchange.answered(exchange.judged(CLAUDE, turn))
    assert (found.status, found.headers["content-type"]) == (529, "application/json")
    assert found.json["error"]["message"] == "Overloaded"


def test_a_stream_that_is_lost_ends_with_a_failed_response() -> None:
    exchange = asked(STREAM)
    reply = exchange.judged(CLAUDE, Turn(text="One two three four."))
    exchange.head(content_type=SSE)
    for frame in list(reply.frames or ())[:4]:
        exchange.data(frame)
    exchange.lost()
    last = exchange.client.events[-1]
    EVENT.validate_python(last)
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"


# ---- what is logged


LOGGED = {"log_statistics": True, "log_payloads": True}


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "streamed"])
def test_usage_and_answer_are_logged(body: Json) -> None:
    exchange = asked(body, logging=LOGGED)
    turn = Turn(text="One two.", usage=Usage(input=12, output=8))
    exchange.answered(exchange.judged(CLAUDE, turn))
    usage, reading = exchange.attempt.usage, exchange.attempt.reading
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (12, 8)
    assert reading is not None
    assert "One two." in (reading.payload() or "")
    assert exchange.attempt.mode == ("stream" if body is STREAM else "oneshot")


def test_usage_that_nobody_tells_is_estimated_from_all_of_the_input() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "two words"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "and three more"},
    ]
    exchange = asked({"input": items, "instructions": "Be very brief."}, "ollama")
    exchange.head()
    exchange.data(b'{"model":"m","message":{"role":"assistant","content":"Hm."},"done":true}')
    exchange.end()
    usage = exchange.client.json["usage"]
    assert usage["input_tokens"] == round(8 * 1.8)


def test_what_only_openais_servers_do_is_not_asked_of_hugging_face() -> None:
    body = {**HELLO, "prompt_cache_key": "k", "safety_identifier": "s", "service_tier": "flex"}
    exchange = asked(body, "huggingface")
    assert orjson.loads(exchange.sent.body).keys() == {"model", "messages"}
    dropped = exchange.upstream.response_headers["x-kong-ai-dropped-params"]
    assert dropped.split(", ") == ["prompt_cache_key", "safety_identifier", "service_tier"]
