"""What OpenAI's row says of its models."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from openai.types.shared import ChatModel

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Call
from kong_ai_proxy.providers.openai import OPENAI

# Those that still take max_tokens. codex-mini-latest has responses only.
OLD = re.compile(r"gpt-(?:3\.5|4|audio)|chatgpt-4o|codex-mini")


def takes_completion_tokens(model: str) -> bool:
    assert OPENAI.completion_tokens_models is not None
    return OPENAI.completion_tokens_models.match(model) is not None


@pytest.mark.parametrize("model", get_args(ChatModel))
def test_models_of_openais_library_get_the_limit_under_a_name_they_take(model: str) -> None:
    assert takes_completion_tokens(model) is (OLD.match(model) is None)


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("gpt-7", True),
        ("ft:o4-mini-2025-04-16:acme::id", True),
        ("ft:gpt-4o-mini-2024-07-18:acme::id", False),
        ("gpt-35-turbo", False),  # as Azure calls it
        ("gpt-50", False),
        ("o10", False),
        ("my-gpt-5", False),
    ],
)
def test_names_that_are_in_no_list(model: str, takes: bool) -> None:
    assert takes_completion_tokens(model) is takes


def test_thoughts_stay_behind_but_at_other_servers() -> None:
    said = [{"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}]
    body = {"model": "gpt-4o", "messages": said}
    change = OPENAI.changes[openai.CHAT]
    here = change(body, Call(openai.CHAT, "gpt-4o", ModelOptions()))
    assert here == {"messages": [{"role": "assistant", "content": "Hello"}]}
    options = ModelOptions(upstream_url="https://api.deepseek.com")
    assert change(body, Call(openai.CHAT, "deepseek-chat", options)) == {}
