"""The price of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config.records import ModelOptions
from kong_ai_proxy.exchange.cost import cost
from kong_ai_proxy.formats.usage import Usage

PLAIN = Usage(prompt_tokens=18, completion_tokens=13, total_tokens=31)


def price(usage: Usage, **options: Any) -> float:
    return cost(ModelOptions.model_validate(options), usage)


def test_prices_are_for_a_million_tokens() -> None:
    assert price(PLAIN, input_cost=10, output_cost=10) == pytest.approx(0.00031)


@pytest.mark.parametrize("options", [{}, {"input_cost": 1}, {"output_cost": 1}])
def test_there_is_no_price_without_both(options: dict[str, float]) -> None:
    assert price(PLAIN, **options) == 0


def cached(read: int = 0, **writes: int) -> Usage:
    by_lifetime = {"" if name == "unknown" else name[1:]: n for name, n in writes.items()}
    return Usage(
        prompt_tokens=1000,
        completion_tokens=0,
        prompt_details={"cached_tokens": read},
        cache_writes=by_lifetime,
    )


@pytest.mark.parametrize(
    ("usage", "options", "millionths"),
    [
        (cached(400), {"cache_read_cost": 1}, 600 * 10 + 400 * 1),
        (cached(400), {"cache_read_cost": 0}, 600 * 10),
        (cached(400), {}, 1000 * 10),
        (cached(unknown=300), {"cache_write_cost": 12}, 700 * 10 + 300 * 12),
        (cached(unknown=300), {}, 1000 * 10),
        (cached(400, unknown=300), {"cache_read_cost": 1}, 300 * 10 + 400 + 300 * 10),
    ],
)
def test_cache_reads_and_writes_have_prices_of_their_own(
    usage: Usage, options: dict[str, float], millionths: float
) -> None:
    found = price(usage, input_cost=10, output_cost=1, **options)
    assert found == pytest.approx(millionths / 1e6)


def test_cache_writes_are_priced_by_their_lifetime() -> None:
    prices = [{"ttl": "5m", "cost": 12}, {"ttl": "1h", "cost": 20}]
    found = price(
        cached(t5m=100, t1h=200, t24h=300),
        input_cost=10,
        output_cost=1,
        cache_write_cost=15,
        cache_write_cost_list=prices,
    )
    assert found == pytest.approx((400 * 10 + 100 * 12 + 200 * 20 + 300 * 15) / 1e6)


def test_more_cached_tokens_than_prompt_tokens_never_make_a_negative_price() -> None:
    found = price(cached(900, t5m=900), input_cost=10, output_cost=1, cache_read_cost=1)
    assert found == pytest.approx((900 * 1 + 100 * 10) / 1e6)


FACTORS = [
    {"above": "200k", "input_factor": 2, "output_factor": 1.5},
    {"above": "1M", "input_factor": 4, "output_factor": 3},
]


@pytest.mark.parametrize(
    ("prompt", "long_input", "long_output"),
    [(200_000, 1, 1), (200_001, 2, 1.5), (1_000_000, 2, 1.5), (1_000_001, 4, 3)],
)
@pytest.mark.parametrize("factors", [FACTORS, FACTORS[::-1]])
def test_a_prompt_above_a_threshold_has_its_factors(
    factors: list[dict[str, object]], prompt: int, long_input: float, long_output: float
) -> None:
    usage = Usage(prompt_tokens=prompt, completion_tokens=100)
    found = price(usage, input_cost=1, output_cost=1, context_window_factor=factors)
    assert found == pytest.approx((prompt * long_input + 100 * long_output) / 1e6)


@pytest.mark.parametrize(
    ("above", "factor"),
    [("128000", 2), ("128k", 2), ("0.1m", 2), ("0.2M", 1), ("many", 1), ("-1", 1), ("k", 1)],
)
def test_thresholds_are_numbers_with_k_or_m(above: str, factor: float) -> None:
    found = price(
        Usage(prompt_tokens=150_000),
        input_cost=1,
        output_cost=1,
        context_window_factor=[{"above": above, "input_factor": 2, "output_factor": 2}],
    )
    assert found == pytest.approx(0.15 * factor)


TIERS = [
    {"tier": "flex", "factor": 0.5},
    {"tier": "priority", "factor": 2},
    {"tier": "priority-plus", "factor": 3},
]


@pytest.mark.parametrize(
    ("tier", "factor"),
    [
        (None, 1),
        ("default", 1),
        ("flex", 0.5),
        ("ON_DEMAND_FLEX", 0.5),
        ("priority", 2),
        ("Priority-Plus", 3),
        ("fast", 2),
        ("fast mode", 2),
        ("breakfast", 1),
    ],
)
def test_the_longest_name_that_the_tier_contains_gives_the_factor(
    tier: str | None, factor: float
) -> None:
    usage = Usage(prompt_tokens=1_000_000, service_tier=tier)
    found = price(usage, input_cost=1, output_cost=1, service_tier_factor=TIERS)
    assert found == pytest.approx(factor)


def test_a_price_that_no_number_holds_is_none() -> None:
    """JSON has no infinity, and Kong's log plugins would fail on it."""
    assert price(PLAIN, input_cost=1e308, output_cost=1e308) == 0
