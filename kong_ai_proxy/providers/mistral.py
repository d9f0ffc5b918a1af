"""Mistral: https://docs.mistral.ai/api, or one of its models on a server that the operator runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import ollama, openai, openai_chat, openai_embeddings
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call, Endpoint, Provider

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

# What OpenAI's clients put into messages and Mistral's do not have. Thoughts are Mistral's own
# kind of content; those of other models are nothing to it.
_UNKNOWN_IN_MESSAGES = frozenset({"annotations", "reasoning", "reasoning_content", "refusal"})
_NULL_IN_MESSAGES = frozenset({"audio", "function_call", "name", "tool_calls", "tool_call_id"})


def _endpoint(call: Call) -> Endpoint:
    """At api.mistral.ai, however it was configured."""
    path = _PATHS[call.route_type]
    if call.route_type == openai.EMBEDDINGS:
        return Endpoint(path, openai_embeddings.EMBEDDINGS, change=_embeddings)
    return Endpoint(path, openai_chat.CHAT, change=_chat)


def _chat(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Mistral's names for what OpenAI's clients say."""
    changes = _renamed(body, "seed", "random_seed")
    changes |= _renamed(body, "max_completion_tokens", "max_tokens")
    messages = body.get("messages")
    if isinstance(messages, list):
        cleaned = [_message(each) if isinstance(each, dict) else each for each in messages]
        if any(new is not old for new, old in zip(cleaned, messages, strict=True)):
            changes["messages"] = cleaned
    return changes


def _embeddings(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    return _renamed(body, "dimensions", "output_dimension")


def _renamed(body: Mapping[str, object], name: str, theirs: str) -> dict[str, object]:
    if name not in body:
        return {}
    if body[name] is None or theirs in body:
        return {name: REMOVED}
    return {name: REMOVED, theirs: body[name]}


def _message(message: dict[str, object]) -> dict[str, object]:
    """The message itself where nothing has to change."""
    role = message.get("role")
    is_developer = isinstance(role, str) and role.lower() == "developer"
    gone = {name for name in message if name in _UNKNOWN_IN_MESSAGES}
    gone |= {name for name in _NULL_IN_MESSAGES if name in message and message[name] is None}
    if role != "tool" and "name" in message:
        gone.add("name")
    if not gone and not is_developer:
        return message
    cleaned = {name: value for name, value in message.items() if name not in gone}
    if is_developer:
        cleaned["role"] = "system"
    if message.get("refusal") and not message.get("content"):
        cleaned["content"] = message["refusal"]
    return cleaned


def _variant(options: ModelOptions) -> Provider:
    if options.mistral_format == "ollama":
        return _OLLAMA
    if options.upstream_url and _host(options.upstream_url) != _HOST:
        return _SELF_HOSTED
    return _OWN


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


_OWN = Provider(
    name="mistral",
    base_url=f"https://{_HOST}",
    endpoint=_endpoint,
    endpoints=frozenset(_PATHS),
    # By model, so that it also holds where `upstream_url` spells Mistral's own address.
    refused_by_model=((re.compile(""), _UNKNOWN),),
    # A stream always tells it: https://docs.mistral.ai/api#tag/chat, CompletionChunk.usage.
    usage_on_request=False,
)

_SELF_HOSTED = Provider(name="mistral", base_url="", paths=_PATHS)

_OLLAMA = Provider(
    name="mistral",
    base_url="",
    paths={openai.CHAT: "/api/chat", openai.EMBEDDINGS: "/api/embed"},
    codecs={openai.CHAT: ollama.CHAT, openai.EMBEDDINGS: ollama.EMBED},
)

MISTRAL = replace(_OWN, variant=_variant)
