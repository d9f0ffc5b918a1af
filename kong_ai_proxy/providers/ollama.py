"""Ollama, which the operator runs: https://github.com/ollama/ollama/blob/main/docs/api.md."""

from __future__ import annotations

from kong_ai_proxy.formats import ollama, openai
from kong_ai_proxy.providers.base import Provider

OLLAMA = Provider(
    name="ollama",
    # Where Ollama listens unless told otherwise (https://docs.ollama.com/faq); by its number, for
    # it does not listen at localhost's other one.
    base_url="http://127.0.0.1:11434",
    paths={openai.CHAT: "/api/chat", openai.EMBEDDINGS: "/api/embed"},
    codecs={openai.CHAT: ollama.CHAT, openai.EMBEDDINGS: ollama.EMBED},
)
