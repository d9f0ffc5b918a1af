"""The circuit breaker: total failures open it, one probe at a time may close it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.balancer.states import States, Table
from tests.unit.balancer.tables import advanced, tables, target

NOW = 1000.0
CONFIG = advanced(target("a"), target("b"), max_fails=3, fail_timeout=10000)


def states(**balancer: int) -> States:
    given = {"max_fails": 3, "fail_timeout": 10000, **balancer}
    return Table.private().states("p", advanced(target("a"), target("b"), **given))


def failed(states: States, times: int, now: float = NOW) -> None:
    for _ in range(times):
        states.failed(0, now)


def test_nothing_is_in_trouble_at_first() -> None:
    fresh = states()
    assert not fresh.doubtful
    assert fresh.is_available(0, NOW)
    assert fresh.claim(0, NOW)


def test_it_opens_with_as_many_failures_as_configured() -> None:
    target = states()
    failed(target, 2)
    assert not target.doubtful
    assert target.is_available(0, NOW)
    failed(target, 1)
    assert target.doubtful
    assert target.doubtful == {0}
    assert not target.is_available(0, NOW)
    assert not target.claim(0, NOW)


def test_a_probe_that_was_not_made_is_anothers() -> None:
    target = states()
    failed(target, 3)
    assert target.claim(0, NOW + 10)
    target.release(0, NOW + 10)
    assert target.claim(0, NOW + 11)


def test_nobody_gives_back_anothers_probe() -> None:
    target = states()
    failed(target, 3)
    assert target.claim(0, NOW + 11)
    target.release(0, NOW + 10)
    assert not target.claim(0, NOW + 12)


def test_another_target_stays_available() -> None:
    target = states()
    failed(target, 3)
    assert target.is_available(1, NOW)
    assert target.claim(1, NOW)


def test_failures_count_in_all_not_in_a_row() -> None:
    target = states()
    for _ in range(3):
        target.failed(0, NOW)
        target.succeeded(0, NOW + 1)
    assert not target.is_available(0, NOW + 1)


def test_a_success_later_than_the_timeout_forgets_failures() -> None:
    target = states()
    failed(target, 2)
    target.succeeded(0, NOW + 10)
    failed(target, 2, NOW + 11)
    assert target.is_available(0, NOW + 11)


def test_time_alone_forgets_nothing() -> None:
    target = states()
    failed(target, 2)
    failed(target, 1, NOW + 3600)
    assert not target.is_available(0, NOW + 3600)


def test_each_failure_puts_the_probe_off() -> None:
    target = states()
    failed(target, 3)
    failed(target, 1, NOW + 9)
    assert not target.is_available(0, NOW + 10)
    assert target.is_available(0, NOW + 19)


def test_one_request_probes() -> None:
    target = states()
    failed(target, 3)
    assert target.is_available(0, NOW + 10)
    assert target.claim(0, NOW + 10)
    assert not target.is_available(0, NOW + 10)
    assert not target.claim(0, NOW + 10)


def test_a_probe_that_succeeds_closes_it() -> None:
    target = states()
    failed(target, 3)
    assert target.claim(0, NOW + 10)
    target.succeeded(0, NOW + 10)
    assert not target.doubtful
    assert target.claim(0, NOW + 10)
    failed(target, 2, NOW + 11)
    assert target.is_available(0, NOW + 11)


def test_a_probe_that_fails_leaves_it_open_as_long_again() -> None:
    target = states()
    failed(target, 3)
    assert target.claim(0, NOW + 10)
    failed(target, 1, NOW + 12)
    assert not target.claim(0, NOW + 21.9)
    assert target.claim(0, NOW + 22)


def test_a_probe_that_nobody_hears_of_is_made_again() -> None:
    target = states()
    failed(target, 3)
    assert target.claim(0, NOW + 10)
    assert not target.claim(0, NOW + 19.9)
    assert target.claim(0, NOW + 20)


def test_a_success_soon_after_the_failures_does_not_close_it() -> None:
    target = states()
    failed(target, 3)
    target.succeeded(0, NOW + 9)
    assert not target.is_available(0, NOW + 9)


def test_without_max_fails_it_never_opens() -> None:
    target = states(max_fails=0)
    failed(target, 1000)
    assert not target.doubtful
    assert target.claim(0, NOW)


def test_workers_count_and_probe_together() -> None:
    first, second = (table.states("p", CONFIG) for table in tables(2))
    failed(first, 1)
    failed(second, 2)
    assert first.doubtful
    assert second.doubtful
    assert not first.is_available(0, NOW)
    assert second.claim(0, NOW + 10)
    assert not first.claim(0, NOW + 10)
    second.succeeded(0, NOW + 10)
    assert not first.doubtful


def test_a_configuration_that_is_loaded_again_is_still_in_trouble() -> None:
    table = Table.private()
    failed(table.states("p", CONFIG), 3)
    again = table.states("p", CONFIG)
    assert again.doubtful
    assert not again.is_available(0, NOW)


def test_a_target_rests_until_its_time() -> None:
    target = states()
    target.rest(0, NOW + 5)
    assert target.doubtful
    assert target.doubtful == {0}
    assert target.is_resting(0, NOW + 4.9)
    assert not target.is_resting(1, NOW)
    assert not target.is_resting(0, NOW + 5)
    assert not target.doubtful


def test_a_target_that_rests_is_available() -> None:
    target = states(max_fails=0)
    target.rest(0, NOW + 5)
    assert target.is_available(0, NOW)
    assert target.claim(0, NOW)


@pytest.mark.parametrize("untils", [(5, 3), (3, 5)])
def test_the_longest_rest_counts(untils: tuple[int, int]) -> None:
    target = states()
    for until in untils:
        target.rest(0, NOW + until)
    assert target.is_resting(0, NOW + 4)


class Model:
    """One target's breaker, as the rule says it."""

    def __init__(self) -> None:
        self.fails = 0
        self.last = self.probed = -1e9

    def available(self, now: float) -> bool:
        return self.fails < 3 or (now >= self.last + 10 and now >= self.probed + 10)

    def step(self, what: str, now: float) -> None:
        if what == "failed":
            self.fails, self.last, self.probed = self.fails + 1, now, -1e9
        elif what == "succeeded" and self.fails and now >= self.last + 10:
            self.fails, self.probed = 0, -1e9
        elif what == "claim" and self.fails >= 3 and self.available(now):
            self.probed = now


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["failed", "succeeded", "claim"]),
            st.integers(0, 2),
            st.sampled_from([0.0, 1.0, 5.0, 10.0]),
        ),
        max_size=40,
    )
)
def test_any_history_is_as_the_rule_says(steps: list[tuple[str, int, float]]) -> None:
    workers = [table.states("p", CONFIG) for table in tables(3)]
    model, now = Model(), NOW
    for what, worker, pause in steps:
        now += pause
        claimed = getattr(workers[worker], what)(0, now)
        if what == "claim":
            assert claimed == model.available(now)
        model.step(what, now)
        for states in workers:
            assert states.is_available(0, now) == model.available(now)
            assert bool(states.doubtful) == (model.fails >= 3)
