"""Every provider by the name that a configuration uses."""

from __future__ import annotations

from kong_ai_proxy.providers.anthropic import ANTHROPIC
from kong_ai_proxy.providers.azure import AZURE
from kong_ai_proxy.providers.base import Provider
from kong_ai_proxy.providers.bedrock import BEDROCK
from kong_ai_proxy.providers.cerebras import CEREBRAS
from kong_ai_proxy.providers.cohere import COHERE
from kong_ai_proxy.providers.dashscope import DASHSCOPE
from kong_ai_proxy.providers.databricks import DATABRICKS
from kong_ai_proxy.providers.deepseek import DEEPSEEK
from kong_ai_proxy.providers.gemini import GEMINI
from kong_ai_proxy.providers.huggingface import HUGGINGFACE
from kong_ai_proxy.providers.llama2 import LLAMA2
from kong_ai_proxy.providers.mistral import MISTRAL
from kong_ai_proxy.providers.ollama import OLLAMA
from kong_ai_proxy.providers.openai import OPENAI
from kong_ai_proxy.providers.vllm import VLLM
from kong_ai_proxy.providers.xai import XAI

_ALL = (
    ANTHROPIC,
    AZURE,
    BEDROCK,
    CEREBRAS,
    COHERE,
    DASHSCOPE,
    DATABRICKS,
    DEEPSEEK,
    GEMINI,
    HUGGINGFACE,
    LLAMA2,
    MISTRAL,
    OLLAMA,
    OPENAI,
    VLLM,
    XAI,
)
PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in _ALL}
