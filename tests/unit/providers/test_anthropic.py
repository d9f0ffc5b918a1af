"""Anthropic as a provider, and what Amazon and Google want of a body for Claude."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import anthropic, openai
from kong_ai_proxy.formats.anthropic.models import NEWEST, UNKNOWN, generation
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.anthropic import (
    ANTHROPIC,
    bedrock_change,
    vertex_change,
)
from kong_ai_proxy.providers.base import Call, Endpoint, Native


def options(version: str | None = None, **more: Any) -> ModelOptions:
    return ModelOptions.model_validate({"anthropic_version": version, **more})


def call(model: str = "claude-sonnet-4-5", version: str | None = None, **more: Any) -> Call:
    return Call(openai.CHAT, model, options(version, **more))


def native(operation: str, path: str) -> Endpoint | None:
    assert ANTHROPIC.native is not None
    return ANTHROPIC.native(Native("anthropic", operation, path=path), call())


def test_chat_speaks_messages_and_completions_the_old_format() -> None:
    assert ANTHROPIC.base(options()) == "https://api.anthropic.com:443"
    assert ANTHROPIC.paths == {openai.CHAT: "/v1/messages", openai.COMPLETIONS: "/v1/complete"}
    assert ANTHROPIC.codecs == {
        openai.CHAT: anthropic.MESSAGES,
        openai.COMPLETIONS: anthropic.COMPLETE,
    }


def test_the_version_is_a_header() -> None:
    assert ANTHROPIC.headers(options("2023-01-01")) == {"anthropic-version": "2023-01-01"}
    assert ANTHROPIC.headers(options()) == {"anthropic-version": "2023-06-01"}


SAMPLING = {"temperature", "top_p", "top_k"}


@pytest.mark.parametrize(
    "model",
    [
        "claude-opus-4-7",
        "claude-opus-4-8",
        "claude-opus-5",
        "claude-opus-5-5",
        "claude-sonnet-5",
        "claude-haiku-5-5",
        "claude-fable-5",
        "claude-mythos-preview",
        "us.anthropic.claude-opus-4-7-v1",
        "claude-opus-4.8",
    ],
)
def test_newer_models_refuse_sampling(model: str) -> None:
    assert ANTHROPIC.find(options()).refused_for(call(model)) == SAMPLING


@pytest.mark.parametrize(
    "model",
    [
        "claude-opus-4-6",
        "claude-sonnet-4-6",
        "claude-sonnet-4-5-20250929",
        "claude-opus-4-20250514",
        "claude-opus-4-5@20251101",
        "anthropic.claude-3-7-sonnet-20250219-v1:0",
        "claude-2.1",
        "some-model",
    ],
)
def test_older_models_take_sampling(model: str) -> None:
    assert ANTHROPIC.find(options()).refused_for(call(model)) == frozenset()


def test_the_newest_version_of_the_api_takes_no_sampling_at_all() -> None:
    row = ANTHROPIC.find(options("2026-10-21"))
    assert row.refused_for(call("claude-sonnet-4-5")) == SAMPLING
    assert row.refused_for(call("m", upstream_url="https://example.com")) == SAMPLING
    assert row.headers(options("2026-10-21")) == {"anthropic-version": "2026-10-21"}


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-opus-4-7", (4, 7)),
        ("claude-opus-4-20250514", (4, 0)),
        ("us.anthropic.claude-opus-4-6-v1:0", (4, 6)),
        ("claude-opus-4-5@20251101", (4, 5)),
        ("claude-3-7-sonnet-20250219", (3, 7)),
        ("claude-sonnet-5", (5, 0)),
        ("anthropic.claude-v2:1", (2, 1)),
        ("claude-mythos-preview", NEWEST),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", UNKNOWN),
        ("gpt-4o", UNKNOWN),
    ],
)
def test_a_models_name_tells_its_generation(model: str, version: tuple[int, int]) -> None:
    assert generation(model) == version


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("messages/count_tokens", "/v1/messages/count_tokens"),
        ("messages/batches", "/v1/messages/batches"),
        ("messages/batches", "/v1/messages/batches/msgbatch_013Zva-2"),
        ("messages/batches", "/v1/messages/batches/msgbatch_013Zva/results"),
        ("messages/batches", "/v1/messages/batches/msgbatch_013Zva/cancel"),
    ],
)
def test_what_only_anthropic_has_is_passed_on(operation: str, path: str) -> None:
    found = native(operation, path)
    assert found is not None
    assert found._replace(change=None) == Endpoint(path)


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("messages/batches", "/v1/messages/batches/../../organizations"),
        ("messages/batches", "/v1/messages/batches/%2e%2e/x"),
        ("messages/batches", "/v1/messages/batches/a/delete"),
        ("messages/batches", "/v1/messages/batches/a//results"),
        ("rerank", "/v1/rerank"),
    ],
)
def test_nothing_else_is(operation: str, path: str) -> None:
    assert native(operation, path) is None


BODY = {"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 9, "messages": []}


def test_bedrock_has_model_and_streaming_in_the_path() -> None:
    assert bedrock_change(BODY, call()) == {
        "model": REMOVED,
        "stream": REMOVED,
        "anthropic_version": "bedrock-2023-05-31",
    }


def test_vertex_has_the_model_in_the_path() -> None:
    assert vertex_change(BODY, call()) == {
        "model": REMOVED,
        "anthropic_version": "vertex-2023-10-16",
    }


def test_a_version_that_somebody_chose_stays() -> None:
    assert bedrock_change({}, call(version="x")) == {"anthropic_version": "x"}
    assert bedrock_change({"anthropic_version": "y"}, call(version="x")) == {}


def test_a_forced_call_of_sonnet_5_on_bedrock_does_not_think() -> None:
    forced = {"anthropic_version": "x", "tool_choice": {"type": "any"}}
    model = "us.anthropic.claude-sonnet-5"
    assert bedrock_change(forced, call(model)) == {"thinking": {"type": "disabled"}}
    assert bedrock_change(forced, call()) == {}


@pytest.mark.parametrize(
    ("model", "output", "changes"),
    [
        ("claude-sonnet-4-5@20250929", {"effort": "low"}, {"output_config": REMOVED}),
        (
            "claude-opus-4-5@20251101",
            {"effort": "low", "format": {}},
            {"output_config": {"format": {}}},
        ),
        ("claude-opus-4-6", {"effort": "low"}, {}),
    ],
)
def test_older_models_on_vertex_get_no_effort(
    model: str, output: dict[str, Any], changes: dict[str, Any]
) -> None:
    body = {"anthropic_version": "x", "output_config": output}
    assert vertex_change(body, call(model)) == changes


def test_bedrock_gets_the_betas_that_it_knows() -> None:
    effort = "effort-2025-11-24"
    body = {"anthropic_version": "x", "anthropic_beta": ["claude-code-20250219", effort, effort]}
    assert bedrock_change(body, call()) == {"anthropic_beta": [effort]}
    alien = {"anthropic_version": "x", "anthropic_beta": ["claude-code-20250219"]}
    assert bedrock_change(alien, call()) == {"anthropic_beta": REMOVED}
