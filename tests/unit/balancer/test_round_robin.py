"""round-robin: smooth, weighted, exact."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.balancer.members import Choice
from kong_ai_proxy.balancer.round_robin import round_robin
from tests.unit.balancer.choosing import counts

WEIGHTS = st.lists(st.integers(1, 12), min_size=2, max_size=8)


class Turns:
    """Turns of targets of these weights."""

    def __init__(self, weights: list[int]) -> None:
        self.everybody = tuple(range(len(weights)))
        self._choice: Choice = round_robin(self.everybody, weights)

    def of(self, pool: tuple[int, ...]) -> int:
        return self._choice.pick(pool, "", 0.0)

    def some(self, count: int, pool: tuple[int, ...] | None = None) -> list[int]:
        return [self.of(pool or self.everybody) for _ in range(count)]


def test_heavy_targets_are_spread_out() -> None:
    turns = Turns([5, 1, 1])
    assert turns.some(7) == [0, 0, 1, 0, 2, 0, 0]


def test_equal_targets_are_asked_one_after_the_other() -> None:
    turns = Turns([100, 100, 100])
    assert turns.some(6) == [0, 1, 2, 0, 1, 2]


@given(WEIGHTS, st.integers(0, 200))
@settings(max_examples=50)
def test_any_window_as_long_as_the_weights_has_each_target_as_often_as_its_weight(
    weights: list[int], start: int
) -> None:
    turns = Turns(weights)
    made = turns.some(start + sum(weights))
    assert Counter(made[start:]) == dict(enumerate(weights))


@given(WEIGHTS)
@settings(max_examples=50)
def test_no_target_is_ever_a_whole_turn_too_late_or_early(weights: list[int]) -> None:
    turns = Turns(weights)
    made = turns.some(sum(weights))
    for target, weight in enumerate(weights):
        for count in range(1, len(made)):
            due = count * weight / sum(weights)
            assert abs(made[:count].count(target) - due) < max(2, len(weights) / 2)


def test_great_weights_with_a_common_divisor_are_as_quick_to_come_round() -> None:
    turns = Turns([65_000, 26_000])
    assert turns.some(7) == [0, 1, 0, 0, 0, 1, 0]


def test_what_is_left_is_balanced_by_weight() -> None:
    turns = Turns([40, 30, 20, 10])
    assert counts(lambda: turns.of((0, 1, 3)), 800) == {0: 400, 1: 300, 3: 100}


def test_who_was_out_comes_back_without_catching_up() -> None:
    turns = Turns([1, 1, 1, 1])
    turns.some(5)
    turns.some(1000, (0, 1, 2))
    assert max(Counter(turns.some(8)).values()) <= 3


@pytest.mark.parametrize("seed", range(5))
def test_turns_among_all_and_among_some_mix_without_a_bias(seed: int) -> None:
    random, turns = Random(seed), Turns([40, 30, 20, 10])
    found: Counter[int] = Counter()
    for _ in range(5000):
        pool = turns.everybody if random.random() < 0.5 else (0, 1, 3)
        found[turns.of(pool)] += 1
    assert found[0] / found[1] == pytest.approx(4 / 3, rel=0.01)
    assert found[0] / found[3] == pytest.approx(4, rel=0.02)


def test_shares_stay_exact_after_thousands_of_turns_without_a_target() -> None:
    turns = Turns([3, 2, 1])
    for _ in range(3):
        turns.some(1001, (0, 2))
        found = Counter(turns.some(6000))
        assert all(
            abs(found[target] - 1000 * weight) <= 2 for target, weight in enumerate((3, 2, 1))
        )


@pytest.mark.parametrize("weights", [[100] * 4, [40, 30, 20, 10]])
def test_a_target_that_is_not_there_is_nobodys_neighbour(weights: list[int]) -> None:
    """What it would have had goes to all others, not to the next one alone."""
    turns = Turns(weights)
    found = Counter(turns.some(2400, (0, 2, 3)))
    whole = sum(weights) - weights[1]
    assert [found[i] for i in (0, 2, 3)] == pytest.approx(
        [2400 * weights[i] / whole for i in (0, 2, 3)], abs=2
    )
