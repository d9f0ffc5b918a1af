"""vLLM, which the operator runs:
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html."""

from __future__ import annotations

from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Provider

VLLM = Provider(name="vllm", base_url="", paths={openai.CHAT: "/v1/chat/completions"})
