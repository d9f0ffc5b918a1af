"""Failures that users of AI gateways have met, in what a provider is asked for: each request goes
to every provider, and the provider's stand-in judges it with the vendor's own models."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from tests.integration.known_text_vendors import FORMATS, TRANSLATED, VENDORS, Vendor
from tests.providers import ToolCall, Turn
from tests.unit.exchange.known_text_exchange import (
    Client,
    Exchange,
    Json,
    at,
    exchanged,
    refusal,
)

# Rows whose one difference is the address run through tests/golden/ alone.
_COPIES = {"cerebras", "dashscope", "vllm", "xai"}
_OWN = {name: vendor for name, vendor in VENDORS.items() if name not in _COPIES}
EVERY = pytest.mark.parametrize("vendor", _OWN.values(), ids=_OWN)
CONVERTED = pytest.mark.parametrize(
    "vendor", [VENDORS[name] for name in TRANSLATED], ids=TRANSLATED
)
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

USER: Json = {"role": "user", "content": "Hello"}
HELLO: Json = {"messages": [USER]}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def tool(name: str, **schema: Any) -> Json:
    """A function of OpenAI's format."""
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, **schema}
    function = {"name": name, "description": f"does {name}", "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = [tool("add"), tool("multiply")]


# ---- 1. streams cut anywhere


@pytest.mark.parametrize("vendor", FORMATS.values(), ids=FORMATS)
def test_a_stream_cut_at_every_byte_gives_the_client_the_same_bytes(vendor: Vendor) -> None:
    """An event cut in two was told twice or not at all: Kong Gateway 3.11.0.2 and 3.12,
    alibaba/higress#4620."""
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    exchange = Exchange(vendor, body)
    reply = exchange.judged(vendor, Turn(text="H\u00e9 \U0001f600"))
    assert reply.frames is not None
    length = len(b"".join(reply.frames))
    expected = masked(exchange.answered(reply).body)
    assert "H\u00e9 \U0001f600" in said(expected)
    for place in range(1, length):
        assert masked(Exchange(vendor, body).answered(reply, at(place)).body) == expected, place


def masked(body: bytes) -> bytes:
    """Without the time that a test runs at."""
    return re.sub(rb'"created":\d+', b'"created":0', body)


def said(body: bytes) -> str:
    """The text of a stream in OpenAI's format."""
    client = Client(status=200, pieces=[body])
    choices = (each["choices"] for each in client.events if isinstance(each, dict))
    return "".join(choice[0]["delta"].get("content") or "" for choice in choices if choice)


# ---- 14. all but the last system message were lost


@EVERY
def test_several_system_and_developer_messages_stay_in_their_order(vendor: Vendor) -> None:
    """Anthropic got only the last one (Kong Gateway 3.14.0.5), and `developer` was no system
    message for Bedrock and Gemini (3.14.0.10)."""
    parts = [{"type": "text", "text": "Second: speak French."}, {"type": "text", "text": "Third."}]
    messages: list[Json] = [
        {"role": "system", "content": "First: be brief."},
        {"role": "developer", "content": parts},
        USER,
        {"role": "assistant", "content": "Bonjour."},
        {"role": "System", "content": "Fourth: speak German."},
        {"role": "user", "content": "Again?"},
    ]
    if not vendor.translated:  # where the body stays as it is, the role has to be spelt right
        messages[4] = {**messages[4], "role": "system"}
        messages[1] = {"role": "system", "content": "Second: speak French. Third."}
    sent, client = exchanged(vendor, {"messages": messages})
    assert client.status == 200
    assert_in_order(sent.body, ["First:", "Second:", "Third.", "Fourth:"])
    assert_in_order(sent.body, ["Hello", "Bonjour.", "Again?"])


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize(
    "model", ["amazon.titan-text-express-v1", "mistral.mistral-7b-instruct-v0:2"]
)
def test_models_without_a_system_prompt_say_so(model: str, role: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html"""
    body = {"messages": [{"role": role, "content": "First."}, USER]}
    refused = refusal(VENDORS["bedrock"], body, name=model)
    assert refused.status == 400
    assert refused.message.endswith(f"system prompts are unsupported for model '{model}'")


@EVERY
def test_the_system_blocks_of_other_formats_stay_in_their_order_too(vendor: Vendor) -> None:
    """The same for clients of Anthropic's, Bedrock's and Gemini's formats."""
    blocks = [{"text": "First."}, {"text": "Second."}, {"text": "Third."}]
    typed = [{"type": "text", **block} for block in blocks]
    bodies: dict[str, tuple[str, Json]] = {
        "anthropic": ("/v1/messages", {"max_tokens": 9, "system": typed, "messages": [USER]}),
        "bedrock": (
            "/model/any/converse",
            {"system": blocks, "messages": [{"role": "user", "content": [{"text": "Hello"}]}]},
        ),
        "gemini": (
            "/v1beta/models/any:generateContent",
            {
                "systemInstruction": {"parts": blocks},
                "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
            },
        ),
    }
    for llm_format, (path, body) in bodies.items():
        path = path.replace("any", quote(vendor.model, safe=""))
        sent, _ = exchanged(vendor, body, llm_format=llm_format, path=path)
        assert_in_order(sent.body, ["First.", "Second.", "Third."])


def assert_in_order(body: bytes, texts: list[str]) -> None:
    places = [body.decode().find(text) for text in texts]
    assert -1 not in places, f"lost: {texts[places.index(-1)]}"
    assert places == sorted(places)


# ---- 15. blocks in an order that was not foreseen

CALL = {"toolUse": {"toolUseId": "tooluse_1", "name": "add", "input": {"a": 1}}}
BLOCKS: Mapping[str, Json] = {
    "result": {"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": "Two."}]}},
    "cache": {"cachePoint": {"type": "default"}},
    "text": {"text": "And now?"},
    "image": {"image": {"format": "png", "source": {"bytes": PIXEL}}},
}
ORDERS = [list(order) for order in itertools.permutations(BLOCKS)]


def converse(blocks: list[str]) -> Json:
    """A request in Bedrock's format whose last turn has these blocks."""
    spec = {"name": "add", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    return {
        "messages": [
            {"role": "user", "content": [{"text": "Add."}]},
            {"role": "assistant", "content": [{"text": "I call."}, CALL]},
            {"role": "user", "content": [BLOCKS[name] for name in blocks]},
        ],
        "toolConfig": {"tools": [{"toolSpec": spec}, {"cachePoint": {"type": "default"}}]},
    }


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_bedrocks_own_blocks_pass_in_any_order(order: list[str]) -> None:
    """A tool's result that any other block follows was a 500 (Kong/kong#14996). What Bedrock gets
    are the client's bytes, whatever is known of them here."""
    raw = orjson.dumps(converse(order), option=orjson.OPT_INDENT_2)
    vendor = VENDORS["bedrock"]
    path = f"/model/{vendor.model}/converse"
    sent, _ = exchanged(vendor, raw, llm_format="bedrock", path=path)
    assert sent.body == raw


@pytest.mark.parametrize("name", ["anthropic", "gemini", "openai", "vertex-claude", "cohere"])
def test_blocks_in_any_order_reach_every_other_format(name: str) -> None:
    """The same where they are converted; the provider wants its own order."""
    vendor = VENDORS[name]
    for order in ORDERS if name == "anthropic" else ORDERS[::5]:
        path = f"/model/{vendor.model}/converse"
        sent, client = exchanged(vendor, converse(order), llm_format="bedrock", path=path)
        assert client.status == 200
        for text in ("I call.", "Two.", "And now?", PIXEL):
            assert text.encode() in sent.body, (order, text)


@EVERY
def test_text_beside_calls_and_results_that_are_arrays_survive(vendor: Vendor) -> None:
    """The text of an assistant that also calls was replaced by the calls (Kong 3.9), and results
    in parts were no results (Kong Gateway 3.14.0.9)."""
    messages = [
        USER,
        asked("call_1", "call_2", text="I call both."),
        {"role": "tool", "tool_call_id": "call_2", "content": result_parts("Two")},
        {"role": "tool", "tool_call_id": "call_1", "content": result_parts("One")},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    if vendor.provider == "mistral":  # which wants an assistant between a tool and a user
        messages.insert(4, {"role": "assistant", "content": "Hm."})
    sent, client = exchanged(vendor, {"messages": messages, "tools": TOOLS})
    assert client.status == 200
    for text in (b"I call both.", b"Two", b"One", b"And now?"):
        assert text in sent.body


def asked(*ids: str, text: str | None = None) -> Json:
    """An assistant that calls `add` with each of these ids."""
    function = {"name": "add", "arguments": '{"a":1}'}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def result_parts(text: str) -> list[Json]:
    return [{"type": "text", "text": text}]


# ---- 16. tool calls

CHOICES: dict[str, Any] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "one": {"type": "function", "function": {"name": "multiply"}},
}


def gemini_mode(mode: str, *names: str) -> Json:
    allowed = {"allowedFunctionNames": list(names)} if names else {}
    return {"functionCallingConfig": {"mode": mode, **allowed}}


# As each format's API reference has it. Bedrock and Ollama have nothing for `none` but to leave
# the tools out, Cohere no name, Ollama nothing that forces a call.
CHOSEN: Mapping[str, Mapping[str, Any]] = {
    "anthropic": {
        "auto": {"tool_choice": {"type": "auto"}},
        "none": {"tool_choice": {"type": "none"}},
        "required": {"tool_choice": {"type": "any"}},
        "one": {"tool_choice": {"type": "tool", "name": "multiply"}},
    },
    "bedrock": {
        "auto": {"toolConfig": {"toolChoice": {"auto": {}}}},
        "none": {"toolConfig": None},
        "required": {"toolConfig": {"toolChoice": {"any": {}}}},
        "one": {"toolConfig": {"toolChoice": {"tool": {"name": "multiply"}}}},
    },
    "gemini": {
        "auto": {"toolConfig": gemini_mode("AUTO")},
        "none": {"toolConfig": gemini_mode("NONE")},
        "required": {"toolConfig": gemini_mode("ANY")},
        "one": {"toolConfig": gemini_mode("ANY", "multiply")},
    },
    "cohere": {
        "auto": {"tool_choice": None},
        "none": {"tool_choice": "NONE"},
        "required": {"tool_choice": "REQUIRED"},
        "one": {"tool_choice": "REQUIRED"},
    },
    "ollama": {"none": {"tools": None}},
    "openai": {name: {"tool_choice": choice} for name, choice in CHOICES.items()},
}
CHOSEN = {
    **CHOSEN,
    "vertex": CHOSEN["gemini"],
    "vertex-claude": CHOSEN["anthropic"],
    "bedrock-claude": CHOSEN["bedrock"],
    "llama2-ollama": CHOSEN["ollama"],
}


@EVERY
@pytest.mark.parametrize("choice", CHOICES)
def test_the_choice_of_tools_is_said_in_the_providers_words(vendor: Vendor, choice: str) -> None:
    """`tool_choice` did not reach Anthropic (Kong Gateway 3.12)."""
    name = next(name for name, each in VENDORS.items() if each is vendor)
    body = {**HELLO, "tools": TOOLS, "tool_choice": CHOICES[choice]}
    exchange = Exchange(vendor, body)
    sent, dropped = exchange.sent, exchange.dropped
    if (name, choice) != ("huggingface", "one"):  # its types have no OpenAI's `type` there
        exchange.judged(vendor)
    expected = CHOSEN.get(name, CHOSEN["openai"] if not vendor.translated else {})
    if choice in expected:
        assert_holds(sent.json, expected[choice])
    else:
        assert choice == "auto" or "tool_choice" in dropped
    if (name, choice) == ("cohere", "one"):  # it can only choose among what it is given
        assert [each["function"]["name"] for each in sent.json["tools"]] == ["multiply"]


def assert_holds(value: Any, part: Any) -> None:
    """That `value` has these members; None for one that it must not have."""
    if not isinstance(part, dict):
        assert value == part
        return
    for name, below in part.items():
        if below is None:
            assert name not in value
        else:
            assert_holds(value[name], below)


@EVERY
@STREAMED
def test_parallel_calls_and_their_results_go_there_and_back(vendor: Vendor, stream: bool) -> None:
    """Wrong indexes, and `stop` for a reason: BerriAI/litellm#2615, #12481; calls over several
    turns failed with Gemini (Kong Gateway 3.12). The results come in another order."""
    calls = [ToolCall("add", {"a": 1}), ToolCall("multiply", {"a": 20}), ToolCall("add", {"a": 3})]
    body: Json = {**HELLO, "tools": TOOLS, "stream": stream}
    _, client = exchanged(vendor, body, Turn(text="I call.", tool_calls=calls))
    message, reason = spoken(client, stream)
    assert reason == "tool_calls"
    made = message["tool_calls"]
    assert [each["function"]["name"] for each in made] == ["add", "multiply", "add"]
    arguments = [orjson.loads(each["function"]["arguments"]) for each in made]
    assert arguments == [{"a": 1}, {"a": 20}, {"a": 3}]
    ids = [each["id"] for each in made]
    assert all(ids)
    assert len(set(ids)) == 3
    results = [
        {"role": "tool", "tool_call_id": each, "content": f"result of {number}"}
        for number, each in enumerate(ids)
    ]
    again = {**body, "messages": [USER, message, *reversed(results)]}
    sent, client = exchanged(vendor, again, Turn(text="Done."))
    assert spoken(client, stream)[1] == "stop"
    for number in range(3):
        assert f"result of {number}".encode() in sent.body


def spoken(client: Client, stream: bool) -> tuple[Json, str]:
    """The assistant's message, to be sent back, and why it ended."""
    assert client.status == 200
    if not stream:
        choice = client.json["choices"][0]
        message = {name: value for name, value in choice["message"].items() if value is not None}
        return message, choice["finish_reason"]
    assert client.events[-1] == b"[DONE]"
    calls: dict[int, Json] = {}
    reasons: list[str] = []
    text = ""
    for choice in deltas(client):
        text += choice["delta"].get("content") or ""
        for piece in choice["delta"].get("tool_calls") or ():
            call = calls.setdefault(
                piece["index"], {"type": "function", "function": {"arguments": ""}}
            )
            call["id"] = piece.get("id") or call["id"]
            call["function"]["name"] = piece["function"].get("name") or call["function"]["name"]
            call["function"]["arguments"] += piece["function"].get("arguments") or ""
        reasons += [choice["finish_reason"]] if choice.get("finish_reason") else []
    assert sorted(calls) == list(range(len(calls)))
    assert len(reasons) == 1
    ordered = {"tool_calls": [calls[number] for number in sorted(calls)]} if calls else {}
    return {"role": "assistant", "content": text, **ordered}, reasons[0]


def deltas(client: Client) -> Iterator[Json]:
    for event in client.events:
        if isinstance(event, dict):
            yield from event["choices"]


@CONVERTED
def test_no_tools_may_be_called_any_more_after_some_were(vendor: Vendor) -> None:
    """`none` late in a conversation: Bedrock, which knows no such choice, wants to see the tools
    of earlier calls, and must not be asked to call one."""
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Two."}
    messages = [USER, asked("call_1"), result]
    body = {"messages": messages, "tools": TOOLS, "tool_choice": "none"}
    _, client = exchanged(vendor, body)
    assert client.status == 200


# ---- 17. empty arrays and objects


@EVERY
def test_an_empty_array_stays_one_and_so_does_an_empty_object(vendor: Vendor) -> None:
    """`required: []` became `{}` in Lua (Kong Gateway 3.12 and 3.15.0.4)."""
    tools = [tool("add", properties={}, required=[]), tool("none", properties={"x": {"enum": []}})]
    messages = [USER, asked("call_1"), {"role": "tool", "tool_call_id": "call_1", "content": "[]"}]
    messages[1]["tool_calls"][0]["function"]["arguments"] = "{}"
    sent, _ = exchanged(vendor, {"messages": messages, "tools": tools, "stop": []})
    assert sent.body.count(b'"required":[]') == 1
    assert sent.body.count(b'"enum":[]') == 1
    assert sent.body.count(b'"properties":{}') == 1
    for name in (b"required", b"enum", b"messages", b"content", b"stop", b"stopSequences"):
        assert b'"%b":{}' % name not in sent.body
    assert b'"properties":[]' not in sent.body
    assert b'"input":[]' not in sent.body


def test_an_empty_array_in_a_schema_of_the_answer_stays_one() -> None:
    """The same in structured output, where the provider has it."""
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    output = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for name in ("anthropic", "gemini", "cohere", "ollama", "openai"):
        sent, client = exchanged(VENDORS[name], {**HELLO, "response_format": output})
        assert b'"required":[]' in sent.body or "response_format" in client.dropped, name
        assert b'"required":{}' not in sent.body


@CONVERTED
@STREAMED
def test_a_call_without_arguments_has_an_empty_object(vendor: Vendor, stream: bool) -> None:
    turn = Turn(tool_calls=[ToolCall("add")])
    _, client = exchanged(vendor, {**HELLO, "tools": TOOLS, "stream": stream}, turn)
    (call,) = spoken(client, stream)[0]["tool_calls"]
    assert call["function"]["arguments"] == "{}"


NULLS = [
    {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": None},
    {"choices": [{"index": 0, "delta": None, "finish_reason": None}], "usage": None},
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": None}, "finish_reason": "stop"}]},
    {"choices": None, "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
]


@pytest.mark.parametrize("llm_format", ["openai", "anthropic"])
def test_choices_that_are_null_hurt_nothing(llm_format: str) -> None:
    """They crashed what counts tokens (Kong Gateway 3.14)."""
    body = {**HELLO, "max_tokens": 9, "stream": True}
    exchange = Exchange(VENDORS["openai"], body, llm_format=llm_format, path="/v1/messages")
    exchange.head(content_type="text/event-stream")
    exchange.data(*(b"data: " + orjson.dumps(each) + b"\n\n" for each in NULLS))
    exchange.data(b"data: [DONE]\n\n")
    client = exchange.end()
    assert client.status == 200
    assert b"Hi" in client.body
    assert exchange.attempt.usage is not None
    assert exchange.attempt.usage.total_tokens == 7


# ---- 18. what only one provider knows

NATIVE_MEMBERS: Json = {
    "cachedContent": "cachedContents/1",
    "safetySettings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"}],
    "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}},
    "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
    "labels": {"team": "one"},
    "unheard_of": {"a": [1, None, {}]},
}
OWN: Mapping[str, frozenset[str]] = {
    "bedrock": frozenset({"guardrailConfig"}),
    "gemini": frozenset({"cachedContent", "safetySettings", "generationConfig", "labels"}),
}


@EVERY
@pytest.mark.parametrize("member", NATIVE_MEMBERS)
def test_a_member_of_one_providers_reaches_it_or_is_reported(vendor: Vendor, member: str) -> None:
    """`cachedContent` and others were dropped and nobody was told (Kong/kong#14837)."""
    value = NATIVE_MEMBERS[member]
    exchange = Exchange(vendor, {**HELLO, member: value})
    keeps = (
        not vendor.translated
        or (member in OWN.get(vendor.provider, ()) and "claude" not in vendor.model)
        or (vendor.provider, member) == ("bedrock", "guardrailConfig")
    )
    if keeps:
        assert exchange.sent.json[member] == value
    assert (member in exchange.dropped) == (not keeps)


@CONVERTED
def test_extra_body_reaches_every_provider_as_it_is(vendor: Vendor) -> None:
    """And cannot bring what the configuration decides."""
    extra = {"unheardOf": {"a": [1, None, {}]}, "model": "another", "stream": True}
    sent = Exchange(vendor, {**HELLO, "extra_body": extra}).sent.json
    assert sent["unheardOf"] == {"a": [1, None, {}]}
    assert sent.get("model", vendor.model) == vendor.model
    assert sent.get("stream", False) is False
    assert "extra_body" not in sent


def test_tools_that_only_one_provider_has_are_refused_elsewhere() -> None:
    """They were dropped from Anthropic to Bedrock (Gravitee#11601): content is never lost."""
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = {**HELLO, "max_tokens": 9, "tools": tools}
    for name in ("gemini", "bedrock", "cohere", "ollama", "openai"):
        refused = refusal(VENDORS[name], body, llm_format="anthropic", path="/v1/messages")
        assert refused.status == 400
        assert "tools" in refused.message
    sent, _ = exchanged(VENDORS["anthropic"], body, llm_format="anthropic", path="/v1/messages")
    assert sent.json["tools"] == tools


# ---- 19. parameters that a model does not take

ANTHROPIC_CLIENT: Json = {"llm_format": "anthropic", "path": "/v1/messages"}


@pytest.mark.parametrize("name", ["openai", "azure"])
@pytest.mark.parametrize("model", ["o1", "o3-mini", "o4-mini", "gpt-5", "gpt-5-mini"])
@pytest.mark.parametrize("client", ["openai", "anthropic", "configuration"])
def test_reasoning_models_get_max_completion_tokens(name: str, model: str, client: str) -> None:
    """They refuse `max_tokens` (Kong Gateway 3.11.0.7), whoever says it."""
    body = HELLO if client == "configuration" else {**HELLO, "max_tokens": 50}
    more: Json = ANTHROPIC_CLIENT if client == "anthropic" else {}
    options: Json = {"options": {"max_tokens": 50}} if client == "configuration" else {}
    sent, _ = exchanged(VENDORS[name], body, name=model, **more, **options)
    assert sent.json["max_completion_tokens"] == 50
    assert "max_tokens" not in sent.json


SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 3}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("anthropic", "claude-opus-4-7"),
        ("bedrock-claude", "us.anthropic.claude-opus-4-7-v1:0"),
        ("vertex-claude", "claude-opus-4-7@20260401"),
    ],
)
@pytest.mark.parametrize("client", ["openai", "anthropic", "configuration"])
def test_newer_claude_models_get_no_sampling_parameters(name: str, model: str, client: str) -> None:
    """Opus 4.7 answers them with a 400, wherever it is served (Kong Gateway 3.14.0.7). A client of
    the provider's own format gets that answer: its request is not changed."""
    vendor = VENDORS[name]
    body = {**HELLO, "max_tokens": 50, **({} if client == "configuration" else SAMPLING)}
    more: Json = ANTHROPIC_CLIENT if client == "anthropic" else {}
    own: Json = {"options": SAMPLING} if client == "configuration" else {}
    exchange = Exchange(vendor, body, name=model, **more, **own)
    if client == "anthropic":
        assert SAMPLING.items() <= exchange.sent.json.items()
        return
    reply = exchange.judged(vendor)
    client_side = exchange.answered(reply)
    assert client_side.dropped == (set() if client == "configuration" else set(SAMPLING))
    assert not any(each in exchange.sent.body for each in (b"temperature", b"top_", b"topP"))


def test_databricks_is_not_asked_for_usage() -> None:
    """Models there answer `stream_options` with a 400 (Kong Gateway 3.14.0.5)."""
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    sent, _ = exchanged(VENDORS["databricks"], body)
    assert "stream_options" not in sent.json
    sent, _ = exchanged(
        VENDORS["databricks"], {**HELLO, "max_tokens": 9, "stream": True}, **ANTHROPIC_CLIENT
    )
    assert "stream_options" not in sent.json


@pytest.mark.parametrize("client", ["openai", "gemini"])
def test_mistral_gets_the_seed_under_its_own_name(client: str) -> None:
    """It refuses `seed` (Kong Gateway 3.12)."""
    vendor = VENDORS["mistral"]
    if client == "openai":
        sent, _ = exchanged(vendor, {**HELLO, "seed": 7})
    else:
        contents = [{"role": "user", "parts": [{"text": "Hello"}]}]
        body = {"contents": contents, "generationConfig": {"seed": 7}}
        path = f"/v1beta/models/{vendor.model}:generateContent"
        sent, _ = exchanged(vendor, body, llm_format="gemini", path=path)
    assert sent.json["random_seed"] == 7
    assert "seed" not in sent.json


def test_ollama_gets_its_content_as_one_text() -> None:
    """It takes no arrays (Kong Gateway 3.15.0.4); images have a place of their own."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    content = [{"type": "text", "text": "What"}, image, {"type": "text", "text": "is this?"}]
    sent, _ = exchanged(VENDORS["ollama"], {"messages": [{"role": "user", "content": content}]})
    (message,) = sent.json["messages"]
    assert isinstance(message["content"], str)
    assert message["content"].split() == ["What", "is", "this?"]
    assert message["images"] == [PIXEL]


def test_xai_gets_the_effort_where_it_expects_it() -> None:
    """`reasoning_effort` was nested (Kong Gateway 3.15)."""
    sent, _ = exchanged(VENDORS["xai"], {**HELLO, "reasoning_effort": "high"})
    assert sent.json["reasoning_effort"] == "high"
    assert "reasoning" not in sent.json


def test_an_older_claude_on_vertex_gets_no_effort() -> None:
    """Vertex refused `output_config` (Kong Gateway 3.15)."""
    body = {**HELLO, "max_tokens": 9, "output_config": {"effort": "low"}}
    sent, _ = exchanged(VENDORS["vertex-claude"], body, **ANTHROPIC_CLIENT)
    assert "output_config" not in sent.json
