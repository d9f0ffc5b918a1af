"""Rounds: whom a request may be sent to, in which order, whatever the algorithm."""

from __future__ import annotations

from collections import Counter
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.balancer import rounds
from kong_ai_proxy.balancer.rounds import Balancer, Round
from kong_ai_proxy.balancer.states import States, Table
from tests.unit.balancer.choosing import ALGORITHMS, balancer, counts
from tests.unit.balancer.tables import advanced, target

NOW = 1000.0
WEIGHTS = [40, 30, 30, 20, 10, 10]
EVERYBODY = range(len(WEIGHTS))
any_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
some_targets = st.lists(st.sampled_from(EVERYBODY), unique=True)


def all_of(round_: Round, now: float = NOW) -> list[int]:
    """Everybody that a round gives."""
    found = takewhile(lambda index: index is not None, iter(lambda: round_.next(now), ...))
    return [index for index in found if index is not None]


def fail(states: States, index: int, now: float = NOW, times: int = 3) -> None:
    for _ in range(times):
        states.failed(index, now)


@any_algorithm
@given(some_targets, some_targets, some_targets)
@settings(max_examples=20, deadline=None)
def test_everybody_who_may_be_asked_is_asked_once_the_resting_last(
    algorithm: str, candidates: list[int], out: list[int], resting: list[int]
) -> None:
    made, states = balancer(algorithm, WEIGHTS, max_fails=3)
    for index in out:
        fail(states, index)
    for index in resting:
        states.rest(index, NOW + 10)
    round_ = made.round(candidates, key="a user")
    found = all_of(round_)
    may = set(candidates) - set(out)
    last = len(may & set(resting))
    assert round_.tried == found
    assert len(found) == len(set(found))
    assert set(found) == may
    assert set(found[len(found) - last :]) == may & set(resting)
    assert round_.next(NOW) is None


@any_algorithm
@given(st.lists(some_targets, min_size=1, max_size=30))
@settings(max_examples=10, deadline=None)
def test_candidates_may_differ_from_request_to_request(
    algorithm: str, requests: list[list[int]]
) -> None:
    made, _ = balancer(algorithm, WEIGHTS)
    for candidates in requests:
        assert sorted(all_of(made.round(candidates, key="a user"))) == sorted(candidates)


@given(st.lists(some_targets, max_size=4), some_targets)
@settings(max_examples=50)
def test_tiers_are_asked_one_after_the_other_and_only_candidates(
    tiers: list[list[int]], candidates: list[int]
) -> None:
    made, _ = balancer("round-robin", WEIGHTS)
    found = all_of(made.round(candidates, tiers=tiers))
    ranks = {
        index: next(rank for rank, tier in enumerate(tiers) if index in tier) for index in found
    }
    assert sorted(found) == sorted({i for tier in tiers for i in tier if i in candidates})
    assert [ranks[index] for index in found] == sorted(ranks.values())


@any_algorithm
def test_a_single_target_works_with_every_algorithm(algorithm: str) -> None:
    made, states = balancer(algorithm, [100], max_fails=1)
    for key in ("", "a user"):
        assert all_of(made.round([0], key=key)) == [0]
    states.failed(0, NOW)
    assert made.round([0]).next(NOW) is None


@any_algorithm
def test_one_of_several_may_be_the_only_candidate(algorithm: str) -> None:
    made, _ = balancer(algorithm, WEIGHTS)
    assert all_of(made.round([3], key="a user")) == [3]


@any_algorithm
def test_without_candidates_there_is_nobody(algorithm: str) -> None:
    made, _ = balancer(algorithm, WEIGHTS)
    assert made.round([]).next(NOW) is None
    assert made.round(EVERYBODY, tiers=[[], []]).next(NOW) is None


@any_algorithm
def test_an_open_breaker_is_probed_by_one_request(algorithm: str) -> None:
    made, states = balancer(algorithm, [100, 100], max_fails=3, fail_timeout=10_000)
    fail(states, 0)
    assert all_of(made.round([0, 1], key="a user")) == [1]
    probes = [all_of(made.round([0, 1], key="a user"), NOW + 10) for _ in range(3)]
    assert sorted(map(len, probes)) == [1, 1, 2]


@any_algorithm
def test_a_probe_that_another_worker_took_is_not_asked(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, states = balancer(algorithm, WEIGHTS, max_fails=3)
    fail(states, 0)
    monkeypatch.setattr(states, "claim", lambda index, now: index != 0)
    assert sorted(all_of(made.round(EVERYBODY, key="a user"), NOW + 60)) == [1, 2, 3, 4, 5]


@any_algorithm
def test_all_resting_targets_are_better_than_none(algorithm: str) -> None:
    made, states = balancer(algorithm, [100, 100])
    for index in (0, 1):
        states.rest(index, NOW + 10)
    assert sorted(all_of(made.round([0, 1], key="a user"))) == [0, 1]


def test_priority_asks_the_greatest_weight_first_and_shares_within_it() -> None:
    made, _ = balancer("priority", [10, 100, 100, 50])
    assert counts(lambda: made.round(range(4)).next(NOW), 100) == {1: 50, 2: 50}
    assert all_of(made.round(range(4)))[2:] == [3, 0]


def test_a_lower_tier_is_asked_when_the_higher_one_is_out() -> None:
    made, states = balancer("priority", [10, 100, 100, 50], max_fails=3)
    fail(states, 1)
    assert counts(lambda: made.round(range(4)).next(NOW), 10) == {2: 10}
    fail(states, 2)
    assert counts(lambda: made.round(range(4)).next(NOW), 10) == {3: 10}
    assert all_of(made.round(range(4))) == [3, 0]


def test_a_resting_target_comes_after_all_lower_tiers() -> None:
    made, states = balancer("priority", [100, 50, 10])
    states.rest(0, NOW + 10)
    assert all_of(made.round(range(3))) == [1, 2, 0]
    assert all_of(made.round(range(3)), NOW + 10) == [0, 1, 2]


def test_an_exhausted_tier_does_not_ask_its_last_target_again() -> None:
    made, _ = balancer("priority", [100, 10])
    round_ = made.round((0, 1))
    assert [round_.next(NOW) for _ in range(4)] == [0, 1, None, None]


def test_each_set_of_candidates_is_balanced_by_its_weights() -> None:
    made, _ = balancer("round-robin", [40, 30, 20, 10])
    found: dict[tuple[int, ...], Counter[int | None]] = {}
    for _ in range(300):
        for candidates in ((0, 1, 2, 3), (0, 3), (2, 1)):
            round_ = made.round(candidates)
            found.setdefault(candidates, Counter())[round_.next(NOW)] += 1
    assert found[0, 1, 2, 3] == {0: 120, 1: 90, 2: 60, 3: 30}
    assert found[0, 3] == {0: 240, 3: 60}
    assert found[2, 1] == {1: 180, 2: 120}


def test_requests_that_one_target_fails_go_to_the_others_by_weight() -> None:
    made, _ = balancer("round-robin", [40, 30, 20, 10])

    def ask() -> int | None:
        round_ = made.round(EVERYBODY[:4])
        first = round_.next(NOW)
        return round_.next(NOW) if first == 2 else first

    found = counts(ask, 4000)
    assert found == {
        0: pytest.approx(2000, 0.02),
        1: pytest.approx(1500, 0.02),
        3: pytest.approx(500, 0.02),
    }


def test_what_is_remembered_of_sets_of_candidates_is_bounded() -> None:
    made, _ = balancer("round-robin", [1] * 30)
    for number in range(3 * rounds.GROUPS):
        candidates = [index for index in range(30) if number >> index & 1]
        assert sorted(all_of(made.round(candidates))) == candidates
    assert len(made._groups) == rounds.GROUPS


def test_semantic_takes_turns_by_weight_within_the_tier_it_is_given() -> None:
    made, _ = balancer("round-robin", [75, 25, 100])
    found = counts(lambda: made.round(range(3), tiers=[[0, 1], [2]]).next(NOW), 100)
    assert found == {0: 75, 1: 25}


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "lowest-usage"])
def test_workers_begin_with_different_targets(algorithm: str) -> None:
    workers = [balancer(algorithm, [100] * 4, ahead=ahead)[0] for ahead in range(8)]
    assert [worker.round(range(4)).next(NOW) for worker in workers] == [0, 1, 2, 3] * 2


def test_the_first_choices_of_many_workers_are_balanced_by_weight() -> None:
    workers = [balancer("round-robin", [40, 30, 20, 10], ahead=ahead)[0] for ahead in range(10)]
    found = Counter(worker.round(range(4)).next(NOW) for worker in workers)
    assert found == {0: 4, 1: 3, 2: 2, 3: 1}


def test_a_target_that_was_not_asked_after_all_may_be_probed_by_the_next() -> None:
    configured = advanced(target("a"), max_fails=1, fail_timeout=10000)
    states = Table.private().states("p", configured)
    states.failed(0, 1000.0)
    balancer = Balancer(configured, states)
    first = balancer.round([0])
    assert first.next(1010.0) == 0
    assert balancer.round([0]).next(1011.0) is None
    first.give_back()
    assert balancer.round([0]).next(1011.0) == 0
