"""Configurations, states that a test sets, and a bound on chance, for tests of algorithms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from random import Random

from kong_ai_proxy.balancer.rounds import Balancer
from kong_ai_proxy.balancer.states import States, Strategy, Table
from kong_ai_proxy.config import AiProxyAdvanced, parse

ALGORITHMS = (
    "consistent-hashing",
    "least-connections",
    "lowest-latency",
    "lowest-usage",
    "priority",
    "round-robin",
)
"""Those that need no more than the configuration of the balancer."""

_PRICES = {"input_cost": 1, "output_cost": 1}


def config(
    algorithm: str, weights: Sequence[int], names: Iterable[str], options: Mapping[str, object]
) -> AiProxyAdvanced:
    """Targets of these weights and models."""
    targets = [
        {
            "route_type": "llm/v1/chat",
            "weight": weight,
            "model": {"provider": "openai", "name": name, "options": _PRICES},
        }
        for name, weight in zip(names, weights, strict=True)
    ]
    found = parse(
        "ai-proxy-advanced",
        {"targets": targets, "balancer": {"algorithm": algorithm, **options}},
    )
    assert isinstance(found, AiProxyAdvanced)
    return found


def balancer(
    algorithm: str,
    weights: Sequence[int],
    names: Iterable[str] = (),
    ahead: int = 0,
    **options: object,
) -> tuple[Balancer, States]:
    """A balancer on its real states, with a seeded generator of random numbers. The models are
    different ones where their names are not given."""
    names = names or [f"model-{number}" for number in range(len(weights))]
    made = config(algorithm, weights, names, options)
    states = Table.private().states("plugin", made)
    return Balancer(made, states, Random(4).random, ahead=ahead), states


class Figures:
    """States that say what a test wrote into them."""

    def __init__(self, targets: int) -> None:
        self.under_way: list[float] = [0] * targets
        self.used: list[float] = [0] * targets
        self.asked: list[float] = [0] * targets
        self.latency: list[float] = [0.0] * targets

    def in_flight(self, now: float) -> Sequence[float]:
        return self.under_way

    def usage(self, strategy: Strategy, now: float) -> Sequence[float]:
        return self.used

    def requests(self, now: float) -> Sequence[float]:
        return self.asked

    def latencies(self, now: float) -> Sequence[float]:
        return self.latency


def counts(choose: Callable[[], int | None], times: int) -> dict[int, int]:
    """How often each target is chosen, in the order of their indexes."""
    found: dict[int, int] = {}
    for _ in range(times):
        index = choose()
        assert index is not None
        found[index] = found.get(index, 0) + 1
    return dict(sorted(found.items()))


def is_chance(found: Mapping[int, int], shares: Mapping[int, float]) -> bool:
    """Whether counts differ from shares (in any unit) by no more than chance: chi-square, at
    about 1 in 10,000 by Wilson and Hilferty's approximation."""
    total, whole = sum(found.values()), sum(shares.values())
    assert set(found) <= set(shares)
    square = sum(
        (found.get(index, 0) - total * share / whole) ** 2 / (total * share / whole)
        for index, share in shares.items()
    )
    freedom = max(1, len(shares) - 1)
    spread = 2 / (9 * freedom)
    return square <= freedom * (1 - spread + 3.72 * sqrt(spread)) ** 3
