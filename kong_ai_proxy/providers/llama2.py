"""Llama 2 or 3 on a server that the operator runs, in one of three formats."""

from __future__ import annotations

from dataclasses import replace

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import llama2, ollama, openai
from kong_ai_proxy.providers.base import Provider

_OPENAI = Provider(
    name="llama2",
    base_url="",
    paths={
        openai.CHAT: "/v1/chat/completions",
        openai.COMPLETIONS: "/v1/completions",
        openai.EMBEDDINGS: "/v1/embeddings",
    },
)

_OLLAMA = Provider(
    name="llama2",
    base_url="",
    paths={
        openai.CHAT: "/api/chat",
        openai.COMPLETIONS: "/api/generate",
        openai.EMBEDDINGS: "/api/embed",
    },
    codecs={
        openai.CHAT: ollama.CHAT,
        openai.COMPLETIONS: ollama.GENERATE,
        openai.EMBEDDINGS: ollama.EMBED,
    },
)

_RAW = Provider(
    name="llama2",
    base_url="",
    paths={openai.CHAT: "/", openai.COMPLETIONS: "/"},
    codecs={openai.CHAT: llama2.RAW, openai.COMPLETIONS: llama2.RAW},
)


def _variant(options: ModelOptions) -> Provider:
    return {"ollama": _OLLAMA, "raw": _RAW}.get(options.llama2_format or "", _OPENAI)


LLAMA2 = replace(_OPENAI, variant=_variant)
