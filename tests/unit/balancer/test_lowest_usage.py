"""lowest-usage: what targets use is evened out, and nobody has to catch up for ever."""

from __future__ import annotations

from random import Random

import pytest

from kong_ai_proxy.balancer.lowest_usage import CATCH_UP, LowestUsage
from kong_ai_proxy.balancer.round_robin import round_robin
from tests.unit.balancer.choosing import Figures, balancer, counts

MEAN = 100


def of(figures: Figures, weights: list[int] | None = None) -> LowestUsage:
    everybody = tuple(range(len(figures.used)))
    ties = round_robin(everybody, weights or [1] * len(everybody))
    return LowestUsage(everybody, figures, "total-tokens", ties)


def figures(*used: float) -> Figures:
    """Targets that used so much, by requests of MEAN."""
    made = Figures(len(used))
    made.used = list(used)
    made.asked = [each / MEAN for each in used]
    return made


def pick(choice: LowestUsage, now: float = 0.0) -> int:
    return choice.pick(choice.indices, "", now)


def served(choice: LowestUsage, known: Figures, count: int, size: float = MEAN) -> list[int]:
    """Requests one after the other, each of which uses `size`."""
    found = []
    for step in range(count):
        index = pick(choice, step / 10)
        known.used[index] += size
        known.asked[index] += 1
        found.append(index)
    return found


def test_the_target_that_used_least_is_asked() -> None:
    assert pick(of(figures(500, 300, 400))) == 1


def test_requests_under_way_count_as_much_as_they_use_on_average() -> None:
    known = figures(1000, 1250)
    known.under_way = [3, 0]
    assert pick(of(known)) == 1
    known.under_way = [2, 0]
    assert pick(of(known)) == 0


def test_they_count_by_what_their_own_target_uses() -> None:
    known = figures(1000, 1000)
    known.asked = [100, 1]
    known.under_way = [3, 1]
    assert pick(of(known)) == 0


def test_equal_targets_are_asked_in_turn_by_weight() -> None:
    choice = of(figures(0, 0, 0), [2, 1, 1])
    assert counts(lambda: pick(choice), 400) == {0: 200, 1: 100, 2: 100}


def test_many_requests_at_once_do_not_all_go_to_one() -> None:
    known = figures(1000, 1000, 1000, 950)
    choice = of(known)
    for _ in range(40):
        known.under_way[pick(choice)] += 1
    assert sorted(known.under_way) == [10, 10, 10, 10]


def test_usage_is_evened_out_where_requests_differ() -> None:
    random, known = Random(3), figures(0, 0, 0)
    choice = of(known)
    for step in range(3000):
        index = pick(choice, step / 10)
        known.used[index] += random.expovariate(1 / MEAN) * (index + 1)
        known.asked[index] += 1
    assert max(known.used) / min(known.used) < 1.02
    assert known.asked[0] / known.asked[2] == pytest.approx(3, rel=0.15)


def test_a_new_target_gets_a_bounded_number_of_requests_before_the_others_get_theirs() -> None:
    known = figures(1_000_000, 1_000_000, 0)
    found = served(of(known), known, 300)
    assert found.index(next(each for each in found if each != 2)) <= CATCH_UP + 1
    assert found[-150:].count(2) == pytest.approx(50, abs=3)


def test_a_new_target_does_not_get_more_than_that_at_once() -> None:
    known = figures(1_000_000, 1_000_000, 0)
    choice = of(known)
    for _ in range(3 * CATCH_UP):
        known.under_way[pick(choice)] += 1
    assert known.under_way[2] == pytest.approx(CATCH_UP + CATCH_UP * 2 / 3, abs=2)


def test_a_target_that_was_out_for_long_does_not_make_up_for_all_of_it() -> None:
    known = figures(1000, 1000, 1000)
    choice = of(known)
    for step in range(3000):
        known.used[choice.pick((0, 1), "", step / 10)] += MEAN
        known.asked[0] += 0.5
        known.asked[1] += 0.5
    found = served(choice, known, 300)
    assert found[: CATCH_UP // 2] == [2] * (CATCH_UP // 2)
    assert found[-150:].count(2) == pytest.approx(50, abs=3)


def test_one_huge_request_is_made_up_for() -> None:
    known = figures(100_000, 100_000, 100_000)
    choice = of(known)
    served(choice, known, 30)
    known.used[0] += 200 * MEAN
    found = served(choice, known, 410)
    assert found[:395].count(0) <= 2
    assert max(known.used) - min(known.used) <= 2 * MEAN


def test_states_that_forget_do_no_harm() -> None:
    known = figures(1_000_000, 1_000_000, 1_000_000)
    choice = of(known)
    served(choice, known, 30)
    known.used, known.asked = [0, 0, 0], [0, 0, 0]
    found = served(choice, known, 300)
    assert all(found.count(target) == pytest.approx(100, abs=CATCH_UP + 2) for target in range(3))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("total-tokens", 1), ("prompt-tokens", 0), ("completion-tokens", 1), ("cost", 2)],
)
def test_what_is_compared_is_configured(strategy: str, expected: int) -> None:
    made, states = balancer("lowest-usage", [1, 1, 1], tokens_count_strategy=strategy)
    states.used(0, 10, 90, 3.0)
    states.used(1, 20, 10, 2.0)
    states.used(2, 30, 50, 1.0)
    assert made.round(range(3)).next(1.0) == expected


def test_a_target_that_always_fails_gets_its_share_of_the_tries() -> None:
    made, states = balancer("lowest-usage", [1, 1, 1])
    first = []
    for step in range(600):
        round_ = made.round(range(3))
        index = round_.next(step / 10)
        first.append(index)
        if index == 2:
            index = round_.next(step / 10)
        assert index is not None
        states.used(index, 50, 50, 0.0)
    tries = len(first) + first.count(2)
    assert first.count(2) == pytest.approx(tries / 3, abs=10)
