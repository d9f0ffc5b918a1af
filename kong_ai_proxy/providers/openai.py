"""OpenAI: https://platform.openai.com/docs/api-reference."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Call, Provider
from kong_ai_proxy.providers.openai_messages import without_thoughts


def _change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """OpenAI answers members of messages that it does not know with a 400; other servers behind
    `upstream_url`, such as DeepSeek's, demand thoughts back."""
    return {} if call.options.upstream_url else without_thoughts(body, call)


OPENAI = Provider(
    name="openai",
    base_url="https://api.openai.com:443",
    paths={
        openai.CHAT: "/v1/chat/completions",
        openai.COMPLETIONS: "/v1/completions",
        openai.EMBEDDINGS: "/v1/embeddings",
        openai.FILES: "/v1/files",
        openai.BATCHES: "/v1/batches",
        openai.ASSISTANTS: "/v1/assistants",
        openai.RESPONSES: "/v1/responses",
        openai.SPEECH: "/v1/audio/speech",
        openai.TRANSCRIPTIONS: "/v1/audio/transcriptions",
        openai.TRANSLATIONS: "/v1/audio/translations",
        openai.IMAGE_GENERATIONS: "/v1/images/generations",
        openai.IMAGE_EDITS: "/v1/images/edits",
        # Kong's page has the path of images here; the API reference has this.
        openai.VIDEOS: "/v1/videos",
        openai.REALTIME: "/v1/realtime",
    },
    is_any_server=True,
    changes={openai.CHAT: _change},
    # `top_k` is not a parameter of OpenAI's, which answers unknown ones with a 400.
    refused=frozenset({"top_k"}),
    required_headers={openai.ASSISTANTS: ("openai-beta", openai.ASSISTANTS_BETA)},
    # "max_tokens ... is not compatible with o-series models" (chat reference); gpt-5 and what came
    # after it are alike, also where they are fine-tuned.
    completion_tokens_models=re.compile(r"(?:ft:)?(?:o[1-9]|gpt-[5-9])(?![0-9])"),
)
