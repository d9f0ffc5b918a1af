"""Cohere's formats: https://docs.cohere.com/reference/about."""

from __future__ import annotations

from kong_ai_proxy.formats.cohere.chat import CHAT
from kong_ai_proxy.formats.cohere.embed import EMBED
from kong_ai_proxy.formats.cohere.generate import GENERATE
from kong_ai_proxy.formats.cohere.rerank import RERANK

__all__ = ["CHAT", "EMBED", "GENERATE", "RERANK"]
