"""lowest-latency: the quickest gets most, the others are measured again and again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.balancer.lowest_latency import (
    LEARNING,
    LEAST,
    MOST,
    LowestLatency,
    shares,
)
from tests.unit.balancer.choosing import Figures, counts, is_chance


def of(figures: Figures, seed: int = 1) -> LowestLatency:
    return LowestLatency(tuple(range(len(figures.latency))), figures, Random(seed).random)


def figures(*latencies: float) -> Figures:
    made = Figures(len(latencies))
    made.latency = list(latencies)
    return made


def pick(choice: LowestLatency) -> int:
    return choice.pick(choice.indices, "", 0.0)


LATENCIES = st.lists(st.floats(0.001, 600), min_size=2, max_size=101)


@given(LATENCIES)
def test_the_quickest_gets_90_to_99_percent_and_the_others_a_tenth_to_5_percent(
    latencies: list[float],
) -> None:
    found = shares(latencies)
    best = latencies.index(min(latencies))
    assert sum(found) == pytest.approx(1)
    assert 0.90 - 1e-9 <= found[best] <= 0.99 + 1e-9
    others = found[:best] + found[best + 1 :]
    assert all(LEAST - 1e-9 <= share <= MOST + 1e-9 for share in others)


@given(LATENCIES)
def test_who_is_nearer_gets_no_less(latencies: list[float]) -> None:
    ranked = sorted(
        zip(latencies, shares(latencies), strict=True), key=lambda row: (row[0], -row[1])
    )
    found = [share for _, share in ranked]
    assert all(near + 1e-12 >= far for near, far in pairwise(found))


def test_a_thousand_others_share_the_tenth_that_there_is() -> None:
    found = shares([1.0] + [2.0] * 1000)
    assert found[0] == pytest.approx(0.90)
    assert found[1:] == pytest.approx([0.0001] * 1000)


def test_one_target_gets_all() -> None:
    assert shares([3.0]) == [1.0]


@pytest.mark.parametrize("latencies", [(0.5, 0.6, 0.9, 4.0), (30.0, 1.0), (5, 4, 3, 2, 1, 2, 3)])
def test_requests_follow_the_shares(latencies: tuple[float, ...]) -> None:
    choice = of(figures(*latencies))
    found = counts(lambda: pick(choice), 20_000)
    assert is_chance(found, dict(enumerate(shares(latencies))))


def test_what_is_left_has_its_own_best() -> None:
    choice = of(figures(0.5, 0.6, 0.9, 4.0))
    found = counts(lambda: choice.pick((1, 2, 3), "", 0.0), 20_000)
    expected = dict(zip((1, 2, 3), shares([0.6, 0.9, 4.0]), strict=True))
    assert is_chance(found, expected)


def test_a_target_without_a_latency_comes_first() -> None:
    assert {pick(of(figures(0.5, 0.0, 0.9), seed)) for seed in range(20)} == {1}


def test_while_it_is_asked_the_others_go_on() -> None:
    known = figures(0.5, 0.0, 0.9)
    known.under_way[1] = 1
    assert 1 not in counts(lambda: pick(of(known)), 100)


def test_several_without_a_latency_are_asked_in_turn() -> None:
    choice = of(figures(0.0, 0.5, 0.0))
    assert [pick(choice) for _ in range(4)] == [0, 2, 0, 2]


def test_a_beginning_with_many_requests_at_once_spreads_them() -> None:
    known = figures(0.0, 0.0, 0.0, 0.0)
    choice = of(known)
    for _ in range(40):
        known.under_way[pick(choice)] += 1
    assert known.under_way == [10, 10, 10, 10]


def test_a_target_that_never_has_a_latency_is_not_asked_first_for_ever() -> None:
    choice = of(figures(0.5, 0.0, 0.9))
    found = [pick(choice) for _ in range(5000)]
    assert found[:LEARNING] == [1] * LEARNING
    expected = dict(enumerate(shares([0.5, 0.9, 0.9])))
    assert is_chance(Counter(found[LEARNING:]), expected)


def test_the_same_seed_makes_the_same_choices() -> None:
    first, second = of(figures(1, 2, 3), 5), of(figures(1, 2, 3), 5)
    assert [pick(first) for _ in range(500)] == [pick(second) for _ in range(500)]
