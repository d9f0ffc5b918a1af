"""DeepSeek: https://api-docs.deepseek.com/api/create-chat-completion."""

from __future__ import annotations

import re

from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Provider

DEEPSEEK = Provider(
    name="deepseek",
    base_url="https://api.deepseek.com",
    paths={openai.CHAT: "/v1/chat/completions"},
    # "Setting logprobs, top_logprobs will trigger an error", while sampling parameters have no
    # effect: https://api-docs.deepseek.com/guides/reasoning_model.
    refused_by_model=(
        (re.compile(r"^deepseek-reasoner"), frozenset({"logprobs", "top_logprobs"})),
    ),
)
