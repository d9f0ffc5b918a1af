"""What the answers of chat and of completions have in common: finish reasons, usage, ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media
from kong_ai_proxy.formats.deltas import FinishReason
from kong_ai_proxy.formats.fields import data_url
from kong_ai_proxy.formats.usage import Usage

# length: Mistral's model_length, Cohere's and Google's words where they show through; the last is
# DeepSeek's, which stops in the middle for want of resources.
_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "max_tokens": "length",
    "model_length": "length",
    "insufficient_system_resource": "length",
}
FAILURES = frozenset({"error"})
"""Finish reasons that are none: Mistral's and others' for an answer that failed on its way."""


def finish_reason(told: object, called: bool) -> FinishReason:
    """The reason in OpenAI's words; `called`: the choice has tool calls."""
    reason = _REASONS.get(told, "stop") if isinstance(told, str) else "stop"
    return "tool_calls" if called and reason == "stop" else reason


def stop_sequence(choice: Mapping[str, object]) -> str | None:
    """What ended the text, where the server tells
    (https://docs.vllm.ai/en/stable/serving/openai_compatible_server: `stop_reason`)."""
    told = choice.get("stop_reason")
    return told if isinstance(told, str) and told else None


def number_of(value: object) -> int:
    """An index or a time; 0 for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int and value >= 0 else 0


def usage_object(usage: Usage) -> dict[str, object]:
    """`usage` for a client. Details that nobody told are left out."""
    found: dict[str, object] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    prompt: dict[str, object] = dict(usage.prompt_details)
    if usage.cached_details:
        prompt["cached_tokens_details"] = dict(usage.cached_details)
    if usage.cache_writes:
        lifetimes = {f"ttl_{name}_tokens": n for name, n in usage.cache_writes.items() if name}
        prompt["cache_write_tokens"] = sum(usage.cache_writes.values())
        if lifetimes:
            prompt["cache_write_tokens_details"] = lifetimes
    if prompt:
        found["prompt_tokens_details"] = prompt
    if usage.completion_details:
        found["completion_tokens_details"] = dict(usage.completion_details)
    return found


def call_id(context: Context, choice: int, number: int) -> str:
    """The id of a tool call for which the provider told none."""
    alternative = f"{choice}_" if choice else ""
    return f"call_{context.id}{alternative}{number}"


def image_part(media: Media) -> dict[str, object]:
    """Something that the model made, for `images` of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(media)}}


def chat_logprobs(content: Sequence[object]) -> dict[str, object]:
    """`logprobs` of a choice of chat."""
    return {"content": list(content), "refusal": None}


def plain_logprobs(content: Sequence[object], offset: int = 0) -> dict[str, object]:
    """`logprobs` of a choice of completions, whose text begins at `offset`
    (https://platform.openai.com/docs/api-reference/completions/object)."""
    tokens: list[str] = []
    offsets: list[int] = []
    chances: list[object] = []
    tops: list[object] = []
    for entry in content:
        if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
            continue
        tokens.append(entry["token"])
        chances.append(entry.get("logprob"))
        offsets.append(offset)
        offset += len(entry["token"])
        top = entry.get("top_logprobs")
        known = [each for each in top if isinstance(each, dict)] if isinstance(top, list) else []
        tops.append({str(each.get("token")): each.get("logprob") for each in known})
    return {
        "tokens": tokens,
        "token_logprobs": chances,
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def logprobs_content(plain: Mapping[str, object]) -> list[object]:
    """The `logprobs` of completions as those of chat."""
    tokens, chances = plain.get("tokens"), plain.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(chances, list):
        return []
    tops = plain.get("top_logprobs")
    tops = tops if isinstance(tops, list) else []
    found: list[object] = []
    for index, (token, chance) in enumerate(zip(tokens, chances, strict=False)):
        top = tops[index] if index < len(tops) else None
        entry = _entry(token, chance)
        entry["top_logprobs"] = (
            [_entry(name, value) for name, value in top.items()] if isinstance(top, dict) else []
        )
        found.append(entry)
    return found


def _entry(token: object, chance: object) -> dict[str, object]:
    text = str(token)
    return {
        "token": text,
        "logprob": cast("float | None", chance),
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }
