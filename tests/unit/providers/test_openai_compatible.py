"""Providers that are little more than an address: where they are and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import llama2, ollama, openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call, Provider
from kong_ai_proxy.providers.cerebras import CEREBRAS
from kong_ai_proxy.providers.dashscope import DASHSCOPE
from kong_ai_proxy.providers.databricks import DATABRICKS
from kong_ai_proxy.providers.deepseek import DEEPSEEK
from kong_ai_proxy.providers.huggingface import HUGGINGFACE
from kong_ai_proxy.providers.llama2 import LLAMA2
from kong_ai_proxy.providers.ollama import OLLAMA
from kong_ai_proxy.providers.openai_messages import without_developer
from kong_ai_proxy.providers.vllm import VLLM
from kong_ai_proxy.providers.xai import XAI

CHAT = "/v1/chat/completions"
CHAT_CALL = Call(openai.CHAT, "m", ModelOptions())


def options(**given: Any) -> ModelOptions:
    return ModelOptions.model_validate(given)


def refused(provider: Provider, model: str) -> frozenset[str]:
    return provider.refused_for(Call(openai.CHAT, model, ModelOptions()))


def changed(
    provider: Provider, model: str, body: dict[str, Any], *, stream: bool = False
) -> dict[str, Any]:
    """A chat request after the provider's last touches."""
    call = Call(openai.CHAT, model, ModelOptions(), stream=stream)
    both = {**body, **provider.changes[openai.CHAT](body, call)}
    return {name: value for name, value in both.items() if value is not REMOVED}


@pytest.mark.parametrize(
    ("provider", "base_url", "paths"),
    [
        (CEREBRAS, "https://api.cerebras.ai", {openai.CHAT: CHAT}),
        (DEEPSEEK, "https://api.deepseek.com", {openai.CHAT: CHAT}),
        (VLLM, "", {openai.CHAT: CHAT}),
        (
            XAI,
            "https://api.x.ai",
            {
                openai.CHAT: CHAT,
                openai.RESPONSES: "/v1/responses",
                openai.IMAGE_GENERATIONS: "/v1/images/generations",
            },
        ),
        (
            DASHSCOPE,
            "https://dashscope-intl.aliyuncs.com",
            {
                openai.CHAT: "/compatible-mode/v1/chat/completions",
                openai.EMBEDDINGS: "/compatible-mode/v1/embeddings",
            },
        ),
        (DATABRICKS, "", {openai.CHAT: "/serving-endpoints/v1/chat/completions"}),
        (
            OLLAMA,
            "http://127.0.0.1:11434",
            {openai.CHAT: "/api/chat", openai.EMBEDDINGS: "/api/embed"},
        ),
    ],
)
def test_where_it_is(provider: Provider, base_url: str, paths: dict[str, str]) -> None:
    assert provider.base(ModelOptions()) == base_url
    assert provider.paths == paths
    assert provider.route_types - provider.flows.keys() == paths.keys()


def test_ollama_speaks_its_own_format() -> None:
    assert OLLAMA.codecs == {openai.CHAT: ollama.CHAT, openai.EMBEDDINGS: ollama.EMBED}


def test_dashscope_in_china() -> None:
    china = options(dashscope={"international": False})
    assert DASHSCOPE.base(china) == "https://dashscope.aliyuncs.com"


@pytest.mark.parametrize(
    ("workspace", "host"),
    [
        ("dbc-a1b2c3d4-e5f6", "dbc-a1b2c3d4-e5f6.cloud.databricks.com"),
        ("example.staging", "example.staging.cloud.databricks.com"),
        ("dbc-a1.cloud.databricks.com", "dbc-a1.cloud.databricks.com"),
        ("adb-5555.19.azuredatabricks.net", "adb-5555.19.azuredatabricks.net"),
        ("1234.5.gcp.databricks.com", "1234.5.gcp.databricks.com"),
        # It may come from a client, so that no other host can be meant.
        ("evil.example", "evil.example.cloud.databricks.com"),
        ("evilazuredatabricks.net", "evilazuredatabricks.net.cloud.databricks.com"),
    ],
)
def test_workspaces_of_databricks(workspace: str, host: str) -> None:
    found = DATABRICKS.base(options(databricks={"workspace_instance_id": workspace}))
    assert found == f"https://{host}"


@pytest.mark.parametrize(
    "workspace", ["a/b", "evil.com#.azuredatabricks.net", "a@b", "a:1", "a..b", ".a", "a.", "a\n"]
)
def test_what_is_no_workspace_is_refused(workspace: str) -> None:
    with pytest.raises(FormatError, match="workspace_instance_id"):
        DATABRICKS.base(options(databricks={"workspace_instance_id": workspace}))


def test_databricks_is_not_asked_for_usage() -> None:
    assert refused(DATABRICKS, "databricks-gpt-oss-20b") == {"stream_options"}
    assert "reasoning_effort" in refused(DATABRICKS, "databricks-claude-sonnet-4-5")
    assert not DATABRICKS.usage_on_request


def test_cerebras_refuses_penalties() -> None:
    expected = {"frequency_penalty", "logit_bias", "presence_penalty"}
    assert refused(CEREBRAS, "gpt-oss-120b") == expected


def test_deepseeks_reasoner_refuses_log_probabilities() -> None:
    assert refused(DEEPSEEK, "deepseek-reasoner") == {"logprobs", "top_logprobs"}
    assert refused(DEEPSEEK, "deepseek-chat") == set()


@pytest.mark.parametrize(
    ("model", "penalties", "effort"),
    [
        ("grok-2-vision", False, False),
        ("grok-3", False, True),
        ("grok-3-latest", False, True),
        ("grok-3-mini", True, False),
        ("grok-4", True, True),
        ("grok-4-0709", True, True),
        ("grok-4-fast-reasoning", True, True),
        ("grok-4-fast-non-reasoning", False, True),
        ("grok-4.20-0309-reasoning", True, True),
        ("grok-4.3", True, False),
        ("grok-code-fast-1", True, False),
    ],
)
def test_models_of_xai(model: str, penalties: bool, effort: bool) -> None:
    found = refused(XAI, model)
    assert ({"presence_penalty", "frequency_penalty", "stop"} <= found) is penalties
    assert ("reasoning_effort" in found) is effort


@pytest.mark.parametrize(
    ("llama2_format", "paths", "codecs"),
    [
        (
            "openai",
            {
                openai.CHAT: CHAT,
                openai.COMPLETIONS: "/v1/completions",
                openai.EMBEDDINGS: "/v1/embeddings",
            },
            {},
        ),
        (
            "ollama",
            {
                openai.CHAT: "/api/chat",
                openai.COMPLETIONS: "/api/generate",
                openai.EMBEDDINGS: "/api/embed",
            },
            {
                openai.CHAT: ollama.CHAT,
                openai.COMPLETIONS: ollama.GENERATE,
                openai.EMBEDDINGS: ollama.EMBED,
            },
        ),
        (
            "raw",
            {openai.CHAT: "/", openai.COMPLETIONS: "/"},
            {openai.CHAT: llama2.RAW, openai.COMPLETIONS: llama2.RAW},
        ),
    ],
)
def test_formats_of_llama2(
    llama2_format: str, paths: dict[str, str], codecs: dict[str, object]
) -> None:
    row = LLAMA2.find(options(llama2_format=llama2_format, upstream_url="http://llama.local"))
    assert (row.name, row.paths, row.codecs) == ("llama2", paths, codecs)
    assert row.base(ModelOptions()) == ""


# ---- what is said otherwise there


@pytest.mark.parametrize(
    ("provider", "model"),
    [(DASHSCOPE, "qwen-plus"), (DATABRICKS, "databricks-gpt-oss-20b"), (DEEPSEEK, "deepseek-chat")],
)
def test_developers_are_the_system_where_the_role_is_unknown(
    provider: Provider, model: str
) -> None:
    said = [
        {"role": "developer", "content": "Be brief", "name": "d"},
        {"role": "system", "content": "Be kind"},
        {"role": "Developer", "content": "Be quick"},
        {"role": "user", "content": "Hi"},
    ]
    found = changed(provider, model, {"messages": said})["messages"]
    assert [message["role"] for message in found] == ["system", "system", "system", "user"]
    assert [{**new, "role": old["role"]} for new, old in zip(found, said, strict=True)] == said


@pytest.mark.parametrize(
    "messages", [None, "hi", [], ["hi", 1, None], [{"role": 1}, {}], [{"role": "user"}]]
)
def test_messages_without_developers_are_left_alone(messages: object) -> None:
    assert without_developer({"messages": messages}, CHAT_CALL) == {}
    assert without_developer({}, CHAT_CALL) == {}


def test_deepseek_gets_thoughts_back_as_they_were() -> None:
    said = [{"role": "assistant", "reasoning_content": "Hm.", "content": "", "tool_calls": []}]
    assert changed(DEEPSEEK, "deepseek-v4-pro", {"messages": said})["messages"] is said


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"reasoning_effort": "none", "thinking": {"type": "enabled"}}, None),
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal"}),
        ({"reasoning_effort": "xhigh"}, {"reasoning_effort": "xhigh"}),
        ({}, {}),
    ],
)
def test_no_thinking_at_deepseek(body: dict[str, Any], expected: dict[str, Any] | None) -> None:
    found = changed(DEEPSEEK, "deepseek-v4-flash", body)
    assert found == ({"thinking": body["thinking"]} if expected is None else expected)


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("qwen-plus", "high", {"enable_thinking": True, "thinking_budget": 24576}),
        ("qwen3-32b", "low", {"enable_thinking": True, "thinking_budget": 1024}),
        ("qwen3.5-plus", "xhigh", {"enable_thinking": True}),
        ("qwen-flash-2025-07-28", "none", {"enable_thinking": False}),
        # No switch: they always think, or never; or an effort is what they take.
        ("qwen3-235b-a22b-thinking-2507", "high", {"reasoning_effort": "high"}),
        ("qwen3-coder-plus", "high", {"reasoning_effort": "high"}),
        ("qwq-plus", "low", {"reasoning_effort": "low"}),
        ("deepseek-v4-pro", "high", {"reasoning_effort": "high"}),
        ("qwen-plus", None, {}),
    ],
)
def test_efforts_in_a_stream_of_dashscope(
    model: str, effort: str | None, expected: dict[str, Any]
) -> None:
    body = {} if effort is None else {"reasoning_effort": effort}
    assert changed(DASHSCOPE, model, body, stream=True) == expected


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("qwen-plus", "high", {}),
        ("qwen-plus", "none", {"enable_thinking": False}),
        ("qwen3-235b-a22b", None, {"enable_thinking": False}),
        ("qwen3-0.6b", "high", {"enable_thinking": False}),
        ("qwen3-235b-a22b-instruct-2507", None, {}),
        ("qwen3.5-plus", None, {}),
    ],
)
def test_dashscope_does_not_think_without_a_stream(
    model: str, effort: str | None, expected: dict[str, Any]
) -> None:
    body = {} if effort is None else {"reasoning_effort": effort}
    assert changed(DASHSCOPE, model, body) == expected


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_said_in_dashscopes_own_words_counts(stream: bool) -> None:
    own = {"enable_thinking": True, "thinking_budget": 50, "reasoning_effort": "high"}
    assert changed(DASHSCOPE, "qwen3-32b", own, stream=stream) == own
    budget = {"thinking_budget": 50, "reasoning_effort": "high"}
    found = changed(DASHSCOPE, "qwen-plus", budget, stream=True)
    assert found == {"enable_thinking": True, "thinking_budget": 50}


@pytest.mark.parametrize(
    ("model", "efforts"),
    [
        ("grok-3-mini", ["low", "low", "low", "low", "high", "high"]),
        ("grok-4.3", ["none", "low", "low", "medium", "high", "high"]),
        ("grok-4.5", ["low", "low", "low", "medium", "high", "high"]),
    ],
)
def test_efforts_of_xai(model: str, efforts: list[str]) -> None:
    asked = ["none", "minimal", "low", "medium", "high", "xhigh"]
    found = [changed(XAI, model, {"reasoning_effort": each}) for each in asked]
    assert found == [{"reasoning_effort": each} for each in efforts]


@pytest.mark.parametrize("body", [{}, {"reasoning_effort": None}, {"reasoning_effort": 1}])
def test_what_is_no_effort_is_left_to_xai(body: dict[str, Any]) -> None:
    assert changed(XAI, "grok-4.3", body) == body


@pytest.mark.parametrize("provider", [DEEPSEEK, HUGGINGFACE])
def test_a_limit_under_its_older_name(provider: Provider) -> None:
    assert changed(provider, "m", {"max_completion_tokens": 5}) == {"max_tokens": 5}
    both = {"max_completion_tokens": 5, "max_tokens": 6}
    assert changed(provider, "m", both) == {"max_tokens": 6}
    nulls = {"max_completion_tokens": 5, "max_tokens": None}
    assert changed(provider, "m", nulls) == {"max_tokens": 5}
    assert changed(provider, "m", {"max_tokens": 6}) == {"max_tokens": 6}


def test_thoughts_of_earlier_turns_stay_behind_where_they_are_unknown() -> None:
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."},
        {"role": "assistant", "content": "Hello", "reasoning": "Hm."},
    ]
    found = changed(CEREBRAS, "gpt-oss-120b", {"messages": said})["messages"]
    assert found == [said[0], {"role": "assistant", "content": "Hello"}, said[2]]
    assert changed(CEREBRAS, "gpt-oss-120b", {"messages": "hi"}) == {"messages": "hi"}
