"""The `usage` objects of OpenAI's answers.

They come in two dialects. Chat, completions, embeddings and runs of assistants count
`prompt_tokens` and `completion_tokens`; responses, images, transcriptions and realtime count
`input_tokens` and `output_tokens`. Details are called `..._tokens_details`, and
`..._token_details` in transcriptions and realtime.
Field names: https://platform.openai.com/docs/api-reference.

What a provider writes there is counted only where it is a whole number that is not negative;
anything else is passed over and never an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_COMPLETION_DETAILS = (
    "completion_tokens_details",
    "output_tokens_details",
    "output_token_details",
)
_MAX_KINDS = 32
_MAX_NAME = 64
_LIFETIME = re.compile(r"ttl_(\w+)_tokens")

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_WORD = 1.8
"""What Kong reckons with where a streamed answer tells no usage."""


def usage(value: object, service_tier: object = None) -> Usage | None:
    """The counts of a `usage` object; None where it has none.

    A transcription billed by its length (`"type": "duration"`) has seconds and no tokens.
    `service_tier` is a member of the answer, beside `usage`. Where the total shows that tokens of
    reasoning are counted beside those of the completion, as xAI does, they are added to them:
    https://docs.x.ai/docs/api-reference#chat-completions.
    """
    if not isinstance(value, dict):
        return None
    prompt, completion = _first_count(value, _PROMPT), _first_count(value, _COMPLETION)
    total = _count(value.get("total_tokens"))
    if prompt is None and completion is None and total is None:
        return None
    prompt, completion = prompt or 0, completion or 0
    details = _first_object(value, _PROMPT_DETAILS)
    completion_details = _kinds(_first_object(value, _COMPLETION_DETAILS))
    reasoning = completion_details.get("reasoning_tokens", 0)
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion if total is None else total,
        prompt_details=_kinds(details),
        completion_details=completion_details,
        cached_details=_kinds(details.get("cached_tokens_details")),
        cache_writes=_cache_writes(details),
        service_tier=service_tier if isinstance(service_tier, str) else None,
    )


def estimate(characters: int, prompt_tokens: int) -> Usage | None:
    """The usage of an answer of so many characters that tells none itself; None for nothing."""
    completion = math.ceil(characters / CHARACTERS_PER_TOKEN)
    if not completion:
        return None
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion,
        total_tokens=prompt_tokens + completion,
        estimated=True,
    )


def prompt_estimate(body: Mapping[str, object]) -> int:
    """About how many tokens the words of a chat, completions or Responses request are. Images count
    none."""
    words = sum(len(text.split()) for text in _texts(body))
    return int(words * TOKENS_PER_WORD + 0.5)


def _texts(body: Mapping[str, object]) -> Iterator[str]:
    prompt = body.get("prompt")
    yield from _strings(prompt if isinstance(prompt, list) else [prompt])
    yield from _strings([body.get("instructions"), body.get("input")])
    for name in ("messages", "input"):
        messages = body.get(name)
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict):
                yield from _parts(message.get("content"))
                yield from _parts(message.get("output"))


def _parts(content: object) -> Iterator[str]:
    parts = content if isinstance(content, list) else [content]
    return _strings([part.get("text") if isinstance(part, dict) else part for part in parts])


def _strings(values: list[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str))


def _count(value: object) -> int | None:
    """`value` where it is a count. A bool is an int to Python and no number to anybody else."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    return None


def _first_count(value: Mapping[str, object], names: tuple[str, ...]) -> int | None:
    counts = (_count(value.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def _first_object(value: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    objects = (value.get(name) for name in names)
    return next((each for each in objects if isinstance(each, dict)), {})


def _kinds(details: object) -> dict[str, int]:
    """The counts of a details object. Their names are the provider's, so they are limited."""
    if not isinstance(details, dict):
        return {}
    counts = ((name, _count(value)) for name, value in details.items() if len(name) <= _MAX_NAME)
    kinds = [(name, count) for name, count in counts if count is not None]
    return dict(kinds[:_MAX_KINDS])


def _cache_writes(details: Mapping[str, object]) -> dict[str, int]:
    """`cache_write_tokens` by lifetime, from names such as `ttl_30m_tokens`."""
    written = _count(details.get("cache_write_tokens"))
    kinds = _kinds(details.get("cache_write_tokens_details"))
    lifetimes = {m[1]: count for name, count in kinds.items() if (m := _LIFETIME.fullmatch(name))}
    rest = (written or 0) - sum(lifetimes.values())
    return {**lifetimes, **({"": rest} if rest > 0 else {})}
