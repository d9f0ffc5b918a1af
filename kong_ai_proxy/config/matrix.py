"""Which provider supports which route type, as Kong 3.15's provider reference has it and, of
`llm/v1/responses`, beyond: there it is OpenAI, Azure and xAI that have it, here every provider that
chats, by conversion.

https://developer.konghq.com/ai-gateway/ai-providers/. `preserve` works with every provider.
"""

from __future__ import annotations

from collections.abc import Mapping

SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "anthropic": (
        "llm/v1/batches",
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/responses",
    ),
    "azure": (
        "audio/v1/audio/speech",
        "audio/v1/audio/transcriptions",
        "audio/v1/audio/translations",
        "image/v1/images/edits",
        "image/v1/images/generations",
        "llm/v1/assistants",
        "llm/v1/batches",
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/embeddings",
        "llm/v1/files",
        "llm/v1/responses",
        "realtime/v1/realtime",
        "video/v1/videos/generations",
    ),
    "bedrock": (
        "image/v1/images/edits",
        "image/v1/images/generations",
        "llm/v1/batches",
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/embeddings",
        "llm/v1/files",
        "llm/v1/responses",
        "video/v1/videos/generations",
    ),
    "cerebras": (
        "llm/v1/chat",
        "llm/v1/responses",
    ),
    "cohere": (
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/embeddings",
        "llm/v1/responses",
    ),
    "dashscope": (
        "image/v1/images/edits",
        "image/v1/images/generations",
        "llm/v1/chat",
        "llm/v1/embeddings",
        "llm/v1/responses",
    ),
    "databricks": (
        "llm/v1/chat",
        "llm/v1/responses",
    ),
    "deepseek": (
        "llm/v1/chat",
        "llm/v1/responses",
    ),
    "gemini": (
        "image/v1/images/edits",
        "image/v1/images/generations",
        "llm/v1/batches",
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/embeddings",
        "llm/v1/files",
        "llm/v1/responses",
        "realtime/v1/realtime",
        "video/v1/videos/generations",
    ),
    "huggingface": (
        "llm/v1/chat",
        "llm/v1/embeddings",
        "llm/v1/responses",
        "video/v1/videos/generations",
    ),
    "llama2": (
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/embeddings",
        "llm/v1/responses",
    ),
    "mistral": (
        "llm/v1/chat",
        "llm/v1/embeddings",
        "llm/v1/responses",
    ),
    "ollama": (
        "llm/v1/chat",
        "llm/v1/embeddings",
        "llm/v1/responses",
    ),
    "openai": (
        "audio/v1/audio/speech",
        "audio/v1/audio/transcriptions",
        "audio/v1/audio/translations",
        "image/v1/images/edits",
        "image/v1/images/generations",
        "llm/v1/assistants",
        "llm/v1/batches",
        "llm/v1/chat",
        "llm/v1/completions",
        "llm/v1/embeddings",
        "llm/v1/files",
        "llm/v1/responses",
        "realtime/v1/realtime",
        "video/v1/videos/generations",
    ),
    "vllm": (
        "llm/v1/chat",
        "llm/v1/responses",
    ),
    "xai": (
        "image/v1/images/generations",
        "llm/v1/chat",
        "llm/v1/responses",
    ),
}
"""By provider; `gemini` is both the public API and Vertex AI."""
