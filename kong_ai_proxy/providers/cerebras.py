"""Cerebras: https://inference-docs.cerebras.ai/api-reference/chat-completions."""

from __future__ import annotations

from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Provider
from kong_ai_proxy.providers.openai_messages import without_thoughts

CEREBRAS = Provider(
    name="cerebras",
    base_url="https://api.cerebras.ai",
    paths={openai.CHAT: "/v1/chat/completions"},
    # Thoughts are `reasoning` there, and go back as a part of the content if at all:
    # https://inference-docs.cerebras.ai/capabilities/reasoning.
    changes={openai.CHAT: without_thoughts},
    # "will result in a 400 error": https://inference-docs.cerebras.ai/resources/openai. An older
    # version of the page also had `parallel_tool_calls` and `service_tier`.
    refused=frozenset({"frequency_penalty", "logit_bias", "presence_penalty"}),
)
