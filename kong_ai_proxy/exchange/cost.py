"""What an answer cost, in the unit of the configured prices, which are for a million tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from kong_ai_proxy.config.records import ContextWindowFactor, ModelOptions, ServiceTierFactor
from kong_ai_proxy.formats.usage import Usage

_MILLION = 1_000_000
_THRESHOLD = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([km]?)\s*", re.IGNORECASE)
_UNITS = {"": 1, "k": 1_000, "m": _MILLION}
_FAST = re.compile(r"\bfast\b", re.IGNORECASE)


def cost(options: ModelOptions, usage: Usage) -> float:
    """The price of `usage`; 0 unless both input_cost and output_cost are configured.

    Prompt tokens read from a cache or written to one have prices of their own where those are
    configured, and input_cost otherwise. Long prompts and service tiers multiply the price.
    """
    if options.input_cost is None or options.output_cost is None:
        return 0.0
    long_input, long_output = _context_factors(options.context_window_factor, usage.prompt_tokens)
    price = long_input * _input_price(options, usage, options.input_cost)
    price += long_output * usage.completion_tokens * options.output_cost
    price *= _tier_factor(options.service_tier_factor, usage.service_tier)
    return price / _MILLION if math.isfinite(price) else 0.0


def _input_price(options: ModelOptions, usage: Usage, input_cost: float) -> float:
    read = min(usage.prompt_details.get("cached_tokens", 0), usage.prompt_tokens)
    read_cost = input_cost if options.cache_read_cost is None else options.cache_read_cost
    price, rest = read * read_cost, usage.prompt_tokens - read
    for lifetime, tokens in usage.cache_writes.items():
        written = min(tokens, rest)  # no provider's slip may make the rest negative
        price += written * _write_cost(options, lifetime, input_cost)
        rest -= written
    return price + rest * input_cost


def _write_cost(options: ModelOptions, lifetime: str, input_cost: float) -> float:
    for entry in options.cache_write_cost_list:
        if entry.ttl == lifetime:
            return entry.cost
    return input_cost if options.cache_write_cost is None else options.cache_write_cost


def _context_factors(
    factors: Sequence[ContextWindowFactor], prompt_tokens: int
) -> tuple[float, float]:
    """The factors on input and output of the highest threshold that the prompt is above."""
    crossed = [
        (threshold, each.input_factor, each.output_factor)
        for each in factors
        if (threshold := _threshold(each.above)) is not None and prompt_tokens > threshold
    ]
    if not crossed:
        return 1.0, 1.0
    _, long_input, long_output = max(crossed)
    return long_input, long_output


def _threshold(above: str) -> float | None:
    """The number of tokens that 200k or 1m stands for; None for what says no number."""
    match = _THRESHOLD.fullmatch(above)
    return float(match[1]) * _UNITS[match[2].lower()] if match else None


def _tier_factor(factors: Sequence[ServiceTierFactor], tier: str | None) -> float:
    """The factor of the longest configured name that the reported tier contains."""
    if not tier:
        return 1.0
    matching = [each for each in factors if _is_tier(each.tier, tier)]
    return max(matching, key=lambda each: len(each.tier)).factor if matching else 1.0


def _is_tier(name: str, tier: str) -> bool:
    """Some providers call their priority tier fast."""
    if name.lower() in tier.lower():
        return True
    return name.lower() == "priority" and _FAST.search(tier) is not None
