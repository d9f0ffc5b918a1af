"""What a hostile client or provider tries where formats are converted."""

from __future__ import annotations

import json
import zlib
from typing import Any

import orjson
import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.added_headers import MAX_DROPPED_HEADER
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import Commit, Data, Emit, End, Env, Finish, Head, ResponseHead
from kong_ai_proxy.exchange.plan import Body, Plan
from kong_ai_proxy.exchange.translation import MAX_ERROR, MAX_UNPACKED
from tests.unit.exchange.exchanges import ai_proxy, request

Json = dict[str, Any]
KEY = "sk-ant-operators"
ANTHROPIC: Json = {
    "auth": {"header_name": "x-api-key", "header_value": KEY},
    "model": {
        "provider": "anthropic",
        "name": "claude-sonnet-4-6",
        "options": {"anthropic_version": "2023-06-01"},
    },
}
BEDROCK: Json = {
    "llm_format": "bedrock",
    "auth": {"header_name": "Authorization", "header_value": "Bearer key"},
    "model": {
        "provider": "bedrock",
        "name": "amazon.nova-lite-v1:0",
        "options": {"bedrock": {"aws_region": "us-east-1"}},
    },
}
CHAT: Json = {"messages": [{"role": "user", "content": "hello"}]}
ENV = Env(1_755_000_000, "x" * 24)


def attempt(configuration: Json, body: Json, **fields: Any) -> Attempt:
    """The attempt for a request, not started."""
    plan = Plan(config.parse("ai-proxy", ai_proxy(**configuration)))
    raw = orjson.dumps(body)
    client = request(raw, **fields)
    plan.check_head(client)
    assert plan.body(client) is Body.READ
    return plan.attempt(client, raw, relayed=True)


def answered(
    started: Attempt, status: int, body: bytes, headers: dict[str, str] | None = None
) -> tuple[ResponseHead, bytes]:
    """What the client gets of a whole answer of the provider."""
    sent = {"content-type": "application/json", **(headers or {})}
    events = (Head(ResponseHead(status, tuple(sent.items()))), Data(body), End())
    actions = [action for event in events for action in started.feed(event)]
    head = next(action.head for action in actions if isinstance(action, Commit))
    assert any(isinstance(action, Finish) for action in actions)
    return head, b"".join(action.chunk for action in actions if isinstance(action, Emit))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/model/amazon.nova-lite-v1:0/converse-stream", CHAT),
        ("/model/amazon.nova-lite-v1:0/invoke-with-response-stream", {"inputText": "hello"}),
        ("/model/amazon.nova-lite-v1:0/invoke-with-response-stream", {"schemaVersion": "x"}),
        ("/retrieveAndGenerateStream", {"input": {"text": "hello"}}),
    ],
)
def test_a_stream_that_is_denied_is_denied_on_every_path(path: str, body: Json) -> None:
    denied = {**BEDROCK, "response_streaming": "deny"}
    with pytest.raises(Refused, match="response streaming is not enabled for this LLM"):
        attempt(denied, body, path=path).start(ENV)


@pytest.mark.parametrize("configuration", [ANTHROPIC, {}], ids=["converted", "same format"])
@pytest.mark.parametrize("name", ["Model", "MODEL", "model ", "Stream", "ſtream"])
def test_extra_body_brings_no_other_spelling_of_what_rules_look_at(
    configuration: Json, name: str
) -> None:
    with pytest.raises(Refused, match="did you mean"):
        attempt(configuration, {**CHAT, "extra_body": {name: "x"}}).start(ENV)


@pytest.mark.parametrize("configuration", [ANTHROPIC, {}], ids=["converted", "same format"])
def test_extra_body_brings_neither_model_nor_stream(configuration: Json) -> None:
    extra = {"model": "other", "stream": True, "metadata": {"user_id": "u"}}
    sent = attempt(configuration, {**CHAT, "extra_body": extra}).start(ENV)
    assert isinstance(sent.body, bytes)
    body = orjson.loads(sent.body)
    assert body["model"] in ("claude-sonnet-4-6", "gpt-4o")
    assert not body.get("stream")
    assert body["metadata"] == {"user_id": "u"}


@pytest.mark.parametrize("name", ["foo\r\nX-Evil: 1", "a\0b", "é漢", "a,b", "x" * 9000])
def test_names_of_what_was_dropped_fit_into_a_header(name: str) -> None:
    sent = attempt(ANTHROPIC, {**CHAT, name: 1, "seed": 1}).start(ENV)
    told = sent.response_headers["x-kong-ai-dropped-params"]
    assert told.isascii()
    assert told.isprintable()
    assert len(told) < MAX_DROPPED_HEADER + 50


def test_of_very_many_dropped_names_the_first_are_told() -> None:
    sent = attempt(ANTHROPIC, {**CHAT, **{f"unknown_{n}": n for n in range(900)}}).start(ENV)
    told = sent.response_headers["x-kong-ai-dropped-params"]
    assert told.startswith("unknown_0, unknown_1, ")
    assert told.endswith(" more")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 600, 999])
def test_a_redirect_ends_here(status: int) -> None:
    started = attempt(ANTHROPIC, CHAT)
    started.start(ENV)
    head, body = answered(started, status, b"", {"location": f"http://evil.example/?key={KEY}"})
    assert head.status == 502
    assert head.header("location") is None
    assert f"status {status}" in orjson.loads(body)["error"]["message"]


def test_a_key_that_the_provider_quotes_stays_here() -> None:
    started = attempt(ANTHROPIC, CHAT)
    started.start(ENV)
    error = {"type": "error", "error": {"type": f"bad {KEY}", "message": f"{KEY} is wrong"}}
    head, body = answered(started, 401, orjson.dumps(error), {"www-authenticate": f"Bearer {KEY}"})
    assert head.status == 401
    assert KEY.encode() not in body + repr(head).encode()


def test_an_error_without_end_is_answered_when_no_more_of_it_is_looked_at() -> None:
    started = attempt(ANTHROPIC, CHAT)
    started.start(ENV)
    list(started.feed(Head(ResponseHead(500, (("content-type", "text/plain"),)))))
    actions = list(started.feed(Data(b"x" * MAX_ERROR)))
    assert any(isinstance(action, Finish) for action in actions)


def test_a_few_bytes_that_unpack_to_very_many_are_no_answer() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(b"[" + b"{}," * (MAX_UNPACKED // 2)) + packer.flush()
    started = attempt(ANTHROPIC, CHAT)
    started.start(ENV)
    head, body = answered(started, 200, bomb, {"content-encoding": "gzip"})
    assert head.status == 502
    assert "unpacks to more than" in orjson.loads(body)["error"]["message"]


def test_a_request_nested_deeper_than_can_be_written_is_refused() -> None:
    schema: Json = {"type": "object"}
    for _ in range(260):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    raw = (
        b'{"messages":[{"role":"user","content":"hi"}],"tools":['
        + json.dumps(tool).encode()
        + b"]}"
    )
    plan = Plan(config.parse("ai-proxy", ai_proxy(**ANTHROPIC)))
    with pytest.raises(Refused, match="nested too deeply"):
        plan.attempt(request(raw), raw, relayed=True).start(ENV)


def test_more_messages_than_any_conversation_has_are_refused() -> None:
    many = {"messages": [{"role": "user", "content": "x"}] * 10_001}
    with pytest.raises(Refused, match="messages: expected at most 10000 elements"):
        attempt(ANTHROPIC, many).start(ENV)


def test_a_native_operation_without_its_body_is_not_called() -> None:
    plan = Plan(config.parse("ai-proxy", ai_proxy(**ANTHROPIC, llm_format="anthropic")))
    with pytest.raises(Refused) as refused:
        plan.attempt(request(b"", method="GET", path="/v1/messages", headers={}), b"")
    assert refused.value.status == 405
