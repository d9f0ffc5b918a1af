"""Alibaba's Dashscope (Model Studio), its endpoint for OpenAI clients:
https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope."""

from __future__ import annotations

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Provider


def _base_url(options: ModelOptions) -> str:
    """Singapore, or Beijing: a key of one is unknown to the other."""
    site = "dashscope-intl" if options.dashscope.international else "dashscope"
    return f"https://{site}.aliyuncs.com"


DASHSCOPE = Provider(
    name="dashscope",
    base_url=_base_url,
    paths={
        openai.CHAT: "/compatible-mode/v1/chat/completions",
        openai.EMBEDDINGS: "/compatible-mode/v1/embeddings",
    },
)
