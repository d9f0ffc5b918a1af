"""Hugging Face's own formats. For chat its servers and its router speak OpenAI's."""

from __future__ import annotations

from kong_ai_proxy.formats.huggingface.embed import EMBED
from kong_ai_proxy.formats.huggingface.generate import GENERATE, GENERATE_ARRAY

__all__ = ["EMBED", "GENERATE", "GENERATE_ARRAY"]
