"""Gemini's `usageMetadata`, https://ai.google.dev/api/generate-content#UsageMetadata.

It is a running total: a later one replaces an earlier one. The count of candidates is without
thoughts, that of the prompt without what tools brought in.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.fields import objects_of
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_MODALITIES = {
    "TEXT": "text_tokens",
    "IMAGE": "image_tokens",
    "VIDEO": "video_tokens",
    "AUDIO": "audio_tokens",
    "DOCUMENT": "document_tokens",
}
_NAMES = {name: modality for modality, name in _MODALITIES.items()}
# https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse,
# TrafficType, in the words that OpenAI has for its tiers.
_TIERS = {
    "ON_DEMAND": "default",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_OFFPEAK": "offpeak",
    "PROVISIONED_THROUGHPUT": "provisioned_throughput",
}


def usage(value: Mapping[str, object]) -> Usage:
    """What a `usageMetadata` counts."""
    prompt = _count(value, "promptTokenCount") + _count(value, "toolUsePromptTokenCount")
    thoughts = _count(value, "thoughtsTokenCount")
    completion = _count(value, "candidatesTokenCount") + thoughts
    cached = _count(value, "cachedContentTokenCount")
    prompt_details = _kinds(value, "promptTokensDetails", "toolUsePromptTokensDetails")
    completion_details = _kinds(value, "candidatesTokensDetails")
    if cached:
        prompt_details["cached_tokens"] = cached
    if thoughts:
        completion_details["reasoning_tokens"] = thoughts
    tier = value.get("serviceTier") or _TIERS.get(str(value.get("trafficType")))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=_count(value, "totalTokenCount") or prompt + completion,
        prompt_details=prompt_details,
        completion_details=completion_details,
        cached_details=_kinds(value, "cacheTokensDetails"),
        service_tier=tier if isinstance(tier, str) else None,
    )


def _count(value: Mapping[str, object], name: str) -> int:
    found = value.get(name)
    return found if type(found) is int and 0 <= found <= MAX_COUNT else 0


def _kinds(value: Mapping[str, object], *names: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in (each for name in names for each in objects_of(value, name)):
        kind = _MODALITIES.get(str(each.get("modality")))
        if kind:
            found[kind] = found.get(kind, 0) + _count(each, "tokenCount")
    return found


def metadata(usage: Usage) -> dict[str, object]:
    """A `usageMetadata` for a client."""
    thoughts = usage.completion_details.get("reasoning_tokens", 0)
    cached = usage.prompt_details.get("cached_tokens", 0)
    found: dict[str, object] = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": max(usage.completion_tokens - thoughts, 0),
        "totalTokenCount": usage.total_tokens,
    }
    if thoughts:
        found["thoughtsTokenCount"] = thoughts
    if cached:
        found["cachedContentTokenCount"] = cached
    for name, kinds in (
        ("promptTokensDetails", usage.prompt_details),
        ("candidatesTokensDetails", usage.completion_details),
    ):
        told = [
            {"modality": _NAMES[kind], "tokenCount": count}
            for kind, count in kinds.items()
            if kind in _NAMES
        ]
        if told:
            found[name] = told
    return found
