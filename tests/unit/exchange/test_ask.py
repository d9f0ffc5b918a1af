"""What a request says, by which its target is chosen."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.config import parse
from kong_ai_proxy.exchange.ask import Ask
from kong_ai_proxy.exchange.plan import Plan
from tests.unit.exchange.exchanges import ai_proxy, request

ASKED = {"role": "user", "content": "first"}
ANSWERED = {"role": "assistant", "content": "an answer"}


def ask(body: Any, path: str = "/chat", **fields: Any) -> Ask:
    """A request that is understood."""
    raw = orjson.dumps(body)
    return Plan(parse("ai-proxy", ai_proxy(**fields))).ask(request(raw, path=path), raw)


def chat(*messages: Any) -> Ask:
    return ask({"messages": messages})


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([ASKED], "first"),
        ([ASKED, ANSWERED, {"role": "User", "content": "second"}], "second"),
        ([ASKED, ANSWERED], "first"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}], "a\nb"),
        ([ASKED, {"role": "user", "content": [{"type": "image_url"}]}], "first"),
        ([ASKED, {"role": "tool", "content": "42"}], "first"),
        ([{"role": "system", "content": "be kind"}], ""),
    ],
)
def test_the_users_last_words_are_the_prompt(messages: list[Any], prompt: str) -> None:
    assert chat(*messages).prompt() == prompt


def test_the_opening_ends_with_the_users_first_words() -> None:
    system = {"role": "system", "content": "be kind"}
    short, long = chat(system, ASKED), chat(system, ASKED, ANSWERED, ASKED)
    assert short.opening() == long.opening()
    assert "be kind" in short.opening()
    assert short.opening() != chat(ASKED).opening()


@pytest.mark.parametrize(
    ("llm_format", "path", "body"),
    [
        ("anthropic", "/v1/messages", {"system": "be kind", "messages": [ASKED], "max_tokens": 1}),
        (
            "anthropic",
            "/v1/messages",
            {
                "system": [{"type": "text", "text": "be kind"}],
                "messages": [ASKED, {"role": "user", "content": [{"type": "tool_result"}]}],
            },
        ),
        (
            "gemini",
            "/v1beta/models/m:generateContent",
            {
                "systemInstruction": {"parts": [{"text": "be kind"}]},
                "contents": [{"parts": [{"text": "first"}]}, {"role": "model", "parts": []}],
            },
        ),
        (
            "bedrock",
            "/model/m/converse",
            {
                "system": [{"text": "be kind"}],
                "messages": [{"role": "user", "content": [{"text": "first"}]}],
            },
        ),
        ("cohere", "/v2/chat", {"messages": [{"role": "system", "content": "be kind"}, ASKED]}),
    ],
)
def test_every_format_is_read(llm_format: str, path: str, body: Any) -> None:
    found = ask({**body}, path, llm_format=llm_format, model={"provider": "openai", "name": None})
    assert found.prompt() == "first"
    assert "be kind" in found.opening()


@pytest.mark.parametrize(
    ("route_type", "body", "prompt"),
    [
        ("llm/v1/completions", {"prompt": "once"}, "once"),
        ("llm/v1/completions", {"prompt": ["once", "twice"]}, "once\ntwice"),
        ("llm/v1/embeddings", {"input": "hello"}, "hello"),
        ("llm/v1/responses", {"input": "hello", "instructions": "be kind"}, "hello"),
        (
            "llm/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]},
            "hello",
        ),
        ("image/v1/images/generations", {"prompt": "a house"}, "a house"),
    ],
)
def test_what_is_no_conversation_says_what_it_wants(
    route_type: str, body: Any, prompt: str
) -> None:
    assert ask(body, route_type=route_type).prompt() == prompt


@pytest.mark.parametrize("odd", [[], [None], [[]], ["x"], [{"role": 1}], [{"content": {"a": 1}}]])
def test_what_makes_no_sense_says_nothing(odd: list[Any]) -> None:
    assert ask({"contents": odd}, route_type="preserve").prompt() == ""


# ---- things that maybe one target keeps


@pytest.mark.parametrize(
    ("llm_format", "method", "path", "seeks", "is_costly"),
    [
        ("anthropic", "GET", "/v1/messages/batches/msgbatch_1", True, False),
        ("anthropic", "DELETE", "/v1/messages/batches/msgbatch_1", True, False),
        ("anthropic", "POST", "/v1/messages/batches/msgbatch_1/cancel", True, True),
        ("anthropic", "POST", "/v1/messages/batches", False, True),
        ("anthropic", "POST", "/v1/messages/count_tokens", False, False),
        ("gemini", "POST", "/v1beta/batches/1:cancel", True, False),
        ("gemini", "PATCH", "/v1beta/cachedContents/1", True, False),
        ("gemini", "POST", "/v1beta/cachedContents", False, False),
        ("gemini", "POST", "/v1beta/models/g:batchGenerateContent", False, True),
        ("gemini", "POST", "/v1/projects/p/locations/l/batchPredictionJobs", False, True),
        ("gemini", "POST", "/v1beta/models/g:countTokens", False, False),
        ("bedrock", "POST", "/model-invocation-job", False, True),
        ("bedrock", "POST", "/model-invocation-job/1/stop", True, True),
        ("cohere", "POST", "/v2/rerank", False, False),
    ],
)
def test_native_requests_that_look_for_something_and_that_make_batches(
    llm_format: str, method: str, path: str, seeks: bool, is_costly: bool
) -> None:
    raw = b"" if method in ("GET", "DELETE") else b"{}"
    plan = Plan(parse("ai-proxy", ai_proxy(llm_format=llm_format)))
    found = plan.ask(request(raw, path=path, method=method), raw)
    assert (found.seeks, found.is_costly) == (seeks, is_costly)
