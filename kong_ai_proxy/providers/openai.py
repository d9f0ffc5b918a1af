"""OpenAI: https://platform.openai.com/docs/api-reference."""

from __future__ import annotations

import re

from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Provider

OPENAI = Provider(
    name="openai",
    base_url="https://api.openai.com:443",
    paths={
        openai.CHAT: "/v1/chat/completions",
        openai.COMPLETIONS: "/v1/completions",
        openai.EMBEDDINGS: "/v1/embeddings",
    },
    # `top_k` is not a parameter of OpenAI's, which answers unknown ones with a 400.
    refused=frozenset({"top_k"}),
    # "max_tokens ... is not compatible with o-series models" (chat reference); gpt-5 is alike.
    completion_tokens_models=re.compile(r"(o[1-9]|gpt-5)(?![0-9])"),
)
