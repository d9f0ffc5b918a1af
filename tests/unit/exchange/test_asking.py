"""What a request in a native format asks for."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.exchange.asking import NATIVE_ONLY, in_native_format
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.formats import openai

ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-6"


def asked(llm_format: str, path: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
    return in_native_format(llm_format, ClientRequest("POST", path, **more), body or {})


@pytest.mark.parametrize("before", ["", "/ai", "/ai/messages"])
@pytest.mark.parametrize(
    ("llm_format", "path", "route_type", "operation"),
    [
        ("anthropic", "/v1/messages", openai.CHAT, "messages"),
        ("anthropic", "/v1/complete", openai.COMPLETIONS, "complete"),
        ("anthropic", "/v1/messages/count_tokens", NATIVE_ONLY, "messages/count_tokens"),
        ("anthropic", "/v1/messages/batches", NATIVE_ONLY, "messages/batches"),
        ("anthropic", "/v1/messages/batches/msgbatch_1/results", NATIVE_ONLY, "messages/batches"),
        ("cohere", "/v2/chat", openai.CHAT, "v2/chat"),
        ("cohere", "/v1/chat", NATIVE_ONLY, "v1/chat"),
        ("cohere", "/v2/embed", openai.EMBEDDINGS, "v2/embed"),
        ("cohere", "/v1/generate", openai.COMPLETIONS, "v1/generate"),
        ("cohere", "/v1/rerank", NATIVE_ONLY, "v1/rerank"),
        ("cohere", "/rerank", NATIVE_ONLY, "v2/rerank"),
        ("huggingface", "/generate", openai.COMPLETIONS, "generate"),
        ("huggingface", "/generate_stream", openai.COMPLETIONS, "generate_stream"),
        ("huggingface", "/v1/chat/completions", openai.CHAT, "v1/chat/completions"),
        ("bedrock", "/rerank", NATIVE_ONLY, "rerank"),
        ("bedrock", "/retrieveAndGenerateStream", NATIVE_ONLY, "retrieveAndGenerateStream"),
        ("gemini", "/v1beta/models/gemini-2.5-flash:countTokens", NATIVE_ONLY, "countTokens"),
    ],
)
def test_the_end_of_the_path_says_the_operation(
    llm_format: str, path: str, route_type: str, operation: str, before: str
) -> None:
    found = asked(llm_format, before + path)
    assert (found.route_type, found.native.operation) == (route_type, operation)
    assert not found.native.path.startswith("/ai")


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash", False),
        ("/x/models/gemini-2.5-flash:streamGenerateContent", "gemini-2.5-flash", True),
        (
            "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent",
            "gemini-2.5-pro",
            False,
        ),
    ],
)
def test_a_path_of_gemini_names_model_and_stream(path: str, model: str, stream: bool) -> None:
    found = asked("gemini", path)
    assert (found.route_type, found.model, found.stream) == (openai.CHAT, model, stream)


@pytest.mark.parametrize("encoded", [ARN, ARN.replace("/", "%2F").replace(":", "%3A")])
@pytest.mark.parametrize(("operation", "stream"), [("converse", False), ("converse-stream", True)])
def test_a_path_of_bedrock_names_model_and_stream(
    encoded: str, operation: str, stream: bool
) -> None:
    found = asked("bedrock", f"/model/{encoded}/{operation}")
    assert (found.route_type, found.model, found.stream) == (openai.CHAT, ARN, stream)


def test_named_captures_say_what_the_path_does_not() -> None:
    captures = {"model": "amazon.nova-lite-v1%3A0", "operation": "converse-stream"}
    found = asked("bedrock", "/chat", captures=captures)
    assert (found.model, found.stream) == ("amazon.nova-lite-v1:0", True)


def test_the_path_counts_before_captures() -> None:
    captures = {"model": "other", "operation": "converse"}
    found = asked("bedrock", "/model/amazon.nova-lite-v1:0/converse-stream", captures=captures)
    assert (found.model, found.stream) == ("amazon.nova-lite-v1:0", True)


@pytest.mark.parametrize(
    ("llm_format", "body", "operation"),
    [
        ("anthropic", {"messages": []}, "messages"),
        ("cohere", {"messages": []}, "v2/chat"),
        ("cohere", {"query": "q", "documents": []}, "v2/rerank"),
        ("cohere", {"texts": ["a"]}, "v2/embed"),
        ("huggingface", {"inputs": "a"}, ""),
        ("huggingface", {"messages": []}, "v1/chat/completions"),
    ],
)
def test_a_path_that_says_nothing_leaves_it_to_the_body(
    llm_format: str, body: dict[str, Any], operation: str
) -> None:
    assert asked(llm_format, "/ai", body).native.operation == operation


def test_a_path_without_model_is_refused_for_bedrock() -> None:
    with pytest.raises(Refused, match=r"expected /model/\{model\}/converse"):
        asked("bedrock", "/chat")


@pytest.mark.parametrize("path", ["/model/../x/converse/..", "/v1/files/%2e%2e/secret"])
def test_a_path_cannot_climb(path: str) -> None:
    with pytest.raises(Refused):
        asked("gemini", path)
