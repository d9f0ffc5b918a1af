"""Mistral: https://docs.mistral.ai/api, or one of its models on a server that the operator runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import ollama, openai
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.providers.base import Call, Endpoint, Provider
from kong_ai_proxy.providers.mistral import messages as mistral_messages
from kong_ai_proxy.providers.openai_messages import renamed

_HOST = "api.mistral.ai"
_PATHS = {openai.CHAT: "/v1/chat/completions", openai.EMBEDDINGS: "/v1/embeddings"}

# Requests are "additionalProperties: false": a member that the reference does not list is a 422.
# What only tunes an answer is left out; `functions`, `audio` and the like are for Mistral to
# refuse.
_UNKNOWN = frozenset(
    {
        "logit_bias",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "stream_options",
        "user",
        "verbosity",
    }
)


def _endpoint(call: Call) -> Endpoint:
    """At api.mistral.ai, however it was configured."""
    path = _PATHS[call.route_type]
    if call.route_type == openai.EMBEDDINGS:
        return Endpoint(path, openai_embeddings.EMBEDDINGS, change=_embeddings)
    return Endpoint(path, openai_chat.CHAT, change=_chat)


def _chat(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Mistral's names for what OpenAI's clients say."""
    changes = renamed(body, "seed", "random_seed")
    changes |= renamed(body, "max_completion_tokens", "max_tokens")
    messages = body.get("messages")
    if isinstance(messages, list) and all(isinstance(each, dict) for each in messages):
        cleaned = mistral_messages.cleaned(messages)
        if cleaned is not None:
            changes["messages"] = cleaned
    tools = body.get("tools")
    if isinstance(tools, list) and any(map(_lacks_parameters, tools)):
        changes["tools"] = [_with_parameters(tool) for tool in tools]
    return changes


def _lacks_parameters(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and not function.get("parameters")


def _with_parameters(tool: dict[str, object]) -> dict[str, object]:
    """A function has to have them at Mistral's."""
    function = tool.get("function")
    if not isinstance(function, dict) or not _lacks_parameters(tool):
        return tool
    return {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}}}}


def _embeddings(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    return renamed(body, "dimensions", "output_dimension")


def _variant(options: ModelOptions) -> Provider:
    return _OLLAMA if options.mistral_format == "ollama" else _OWN


_OWN = Provider(
    name="mistral",
    tells_usage_unasked=True,
    base_url=f"https://{_HOST}",
    endpoint=_endpoint,
    endpoints=frozenset(_PATHS),
    # By model, so that Vertex AI, which has these models too, can take it over.
    refused_by_model=((re.compile(""), _UNKNOWN),),
    # A stream always tells it: https://docs.mistral.ai/api#tag/chat, CompletionChunk.usage.
    usage_on_request=False,
)

_OLLAMA = Provider(
    name="mistral",
    base_url="",
    paths={openai.CHAT: "/api/chat", openai.EMBEDDINGS: "/api/embed"},
    codecs={openai.CHAT: ollama.CHAT, openai.EMBEDDINGS: ollama.EMBED},
)

MISTRAL = replace(_OWN, variant=_variant)
