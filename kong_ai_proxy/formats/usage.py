"""The tokens of one answer, whatever format the provider told them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_COUNT = 2**53 - 1
"""Largest count: Kong's Lua holds no larger whole number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts as the provider told them, unless `estimated`."""

    prompt_tokens: int = 0
    """All of them: those read from a cache and written to one are among them."""
    completion_tokens: int = 0
    """All of them: those of reasoning are among them."""
    total_tokens: int = 0
    prompt_details: Mapping[str, int] = field(default_factory=dict)
    """By kind, under OpenAI's names: `cached_tokens`, `audio_tokens`, `text_tokens`, ..."""
    completion_details: Mapping[str, int] = field(default_factory=dict)
    """By kind: `reasoning_tokens`, `audio_tokens`, ..."""
    cached_details: Mapping[str, int] = field(default_factory=dict)
    """What `cached_tokens` consists of, by kind."""
    cache_writes: Mapping[str, int] = field(default_factory=dict)
    """Prompt tokens written to a cache by lifetime, such as 5m or 1h; "" where it is not known."""
    service_tier: str | None = None
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        """Both together: the answers of one realtime session."""
        return Usage(
            prompt_tokens=_sum(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=_sum(self.completion_tokens, other.completion_tokens),
            total_tokens=_sum(self.total_tokens, other.total_tokens),
            prompt_details=_merged(self.prompt_details, other.prompt_details),
            completion_details=_merged(self.completion_details, other.completion_details),
            cached_details=_merged(self.cached_details, other.cached_details),
            cache_writes=_merged(self.cache_writes, other.cache_writes),
            service_tier=other.service_tier or self.service_tier,
            estimated=self.estimated or other.estimated,
        )


def _merged(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: _sum(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def _sum(one: int, other: int) -> int:
    return min(one + other, MAX_COUNT)
