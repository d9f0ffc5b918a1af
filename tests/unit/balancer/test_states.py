"""What the workers of a node know together of their targets."""

from __future__ import annotations

import gc
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.balancer import identity
from kong_ai_proxy.balancer.memory import size
from kong_ai_proxy.balancer.states import SNAPSHOT_SECONDS, USAGE_SECONDS, States, Strategy, Table
from tests.unit.balancer.tables import advanced, memory, tables, target

TWO = advanced(target("a"), target("b"))
LATER = 2 * SNAPSHOT_SECONDS


def test_a_worker_sees_at_once_what_it_has_under_way() -> None:
    states = Table.private().states("p", TWO)
    states.begin(1)
    assert list(states.in_flight(1.0)) == [0, 1]
    states.begin(1)
    states.begin(0)
    assert list(states.in_flight(1.0)) == [1, 2]
    states.end(1)
    assert list(states.in_flight(1.0)) == [1, 1]


def test_a_worker_sees_soon_what_the_others_have_under_way() -> None:
    mine, other = (table.states("p", TWO) for table in tables(2))
    assert list(mine.in_flight(1.0)) == [0, 0]
    other.begin(0)
    mine.begin(0)
    assert list(mine.in_flight(1.0 + LATER)) == [2, 0]
    other.end(0)
    assert list(mine.in_flight(1.0 + 2 * LATER)) == [1, 0]


def test_a_snapshot_is_taken_anew_where_the_clock_went_back() -> None:
    mine, other = (table.states("p", TWO) for table in tables(2))
    mine.in_flight(100.0)
    other.begin(0)
    assert list(mine.in_flight(1.0)) == [1, 0]


def test_usage_is_that_of_all_workers() -> None:
    mine, other = (table.states("p", TWO) for table in tables(2))
    mine.used(0, 10, 5, 0.25)
    other.used(0, 1, 2, 0.5)
    other.used(1, 7, 0, 0.0)
    usage: dict[Strategy, list[float]] = {
        "total-tokens": [18, 7],
        "prompt-tokens": [11, 7],
        "completion-tokens": [7, 0],
        "cost": [0.75, 0],
    }
    for strategy, expected in usage.items():
        assert list(mine.usage(strategy, 1.0)) == expected
    assert list(mine.requests(1.0)) == [2, 1]


def test_the_usage_of_others_is_looked_at_now_and_then() -> None:
    mine, other = (table.states("p", TWO) for table in tables(2))
    assert mine.usage("cost", 1.0)[0] == mine.requests(1.0)[0] == 0
    other.used(0, 1, 1, 0.5)
    assert mine.usage("cost", 1.0 + USAGE_SECONDS)[0] == 0.5
    assert mine.requests(1.0 + USAGE_SECONDS)[0] == 1


def test_own_usage_counts_at_once() -> None:
    states = Table.private().states("p", TWO)
    assert list(states.usage("total-tokens", 1.0)) == [0, 0]
    states.used(1, 10, 5, 0.25)
    assert list(states.usage("total-tokens", 1.0)) == [0, 15]
    assert list(states.usage("cost", 1.0)) == [0, 0.25]


def test_one_target_is_a_list_of_one() -> None:
    states = Table.private().states("p", advanced(target("a")))
    states.begin(0)
    assert list(states.in_flight(1.0)) == [1]
    assert list(states.latencies(1.0)) == [0.0]


def test_a_latency_is_none_before_the_first_sample_and_then_that() -> None:
    mine, other = (table.states("p", TWO) for table in tables(2))
    assert list(mine.latencies(1.0)) == [0.0, 0.0]
    other.took(1, 0.5, 1.0)
    assert list(mine.latencies(1.0)) == [0.0, 0.5]


def test_a_latency_rises_at_once_and_falls_slowly() -> None:
    states = Table.private().states("p", TWO)
    states.took(0, 0.2, 1000.0)
    states.took(0, 2.0, 1001.0)
    assert states.latencies(1001.0)[0] == 2.0
    states.took(0, 0.2, 1002.0)
    after_one = states.latencies(1002.0)[0]
    assert 1.7 < after_one < 2.0
    states.took(0, 0.2, 1060.0)
    assert states.latencies(1060.0)[0] == pytest.approx(0.2, abs=0.02)


def test_samples_out_of_order_do_no_harm() -> None:
    states = Table.private().states("p", TWO)
    states.took(0, 1.0, 1000.0)
    states.took(0, 0.5, 999.0)
    assert states.latencies(1000.0)[0] == 1.0


def test_a_configuration_that_is_loaded_again_keeps_its_state() -> None:
    table = Table.private()
    before = table.states("p", TWO)
    before.used(1, 10, 5, 0.0)
    before.begin(0)
    del before
    gc.collect()
    after = table.states("p", advanced(target("a"), target("b")))
    assert list(after.usage("total-tokens", 1.0)) == [0, 15]
    assert list(after.in_flight(1.0)) == [1, 0]


def test_a_request_of_the_configuration_before_ends_in_the_one_after() -> None:
    table = Table.private()
    before = table.states("p", TWO)
    before.begin(0)
    after = table.states("p", TWO)
    before.end(0)
    assert list(after.in_flight(1.0)) == [0, 0]


def test_a_target_keeps_its_state_when_others_change() -> None:
    table = Table.private()
    table.states("p", TWO).used(1, 10, 5, 0.0)
    changed = table.states("p", advanced(target("new"), target("b", weight=5, description="d")))
    assert list(changed.usage("total-tokens", 1.0)) == [0, 15]


@pytest.mark.parametrize(
    "other",
    [
        target("b"),
        target("a", route_type="llm/v1/completions"),
        target("a", auth={"header_name": "authorization", "header_value": "Bearer other"}),
        target("a", model={"provider": "cohere", "name": "a"}),
        target("a", model={"provider": "openai", "name": "a", "options": {"temperature": 1.0}}),
    ],
)
def test_who_is_asked_what_and_as_whom_makes_another_target(other: dict[str, object]) -> None:
    assert not {*identity.keys("p", advanced(target("a")).targets)} & {
        *identity.keys("p", advanced(other).targets)
    }


def test_a_price_or_a_default_makes_no_other_target() -> None:
    model = {"provider": "openai", "name": "a"}
    costly = {"input_cost": 1.0, "output_cost": 2.0, "azure_api_version": "2023-05-15"}
    same = advanced(
        target("a", model={**model, "options": costly}, logging={"log_statistics": True})
    )
    assert identity.keys("p", same.targets) == identity.keys("p", advanced(target("a")).targets)
    assert identity.identities(same.targets) == identity.identities(advanced(target("a")).targets)


def test_another_plugin_has_other_state() -> None:
    table = Table.private()
    table.states("p", TWO).used(0, 1, 1, 0.0)
    assert list(table.states("q", TWO).usage("total-tokens", 1.0)) == [0, 0]


def test_equal_targets_are_told_apart() -> None:
    states = Table.private().states("p", advanced(target("a"), target("a")))
    states.begin(1)
    assert list(states.in_flight(1.0)) == [0, 1]


def test_identities_are_different_and_tell_no_secret() -> None:
    targets = advanced(target("a"), target("a"), target("b")).targets
    found = identity.identities(targets)
    assert len(set(found)) == 3
    assert not any("Bearer" in each for each in found)


def test_a_worker_that_starts_again_has_nothing_under_way() -> None:
    shared = memory(2)
    dead, other = Table(shared, 0).states("p", TWO), Table(shared, 1).states("p", TWO)
    dead.begin(0)
    dead.used(0, 3, 4, 0.0)
    other.begin(0)
    again = Table(shared, 0).states("p", TWO)
    assert list(again.in_flight(1.0)) == [1, 0]
    assert list(again.usage("total-tokens", 1.0)) == [7, 0]


def of(count: int, prefix: str = "m") -> list[dict[str, object]]:
    return [target(f"{prefix}{i}") for i in range(count)]


def test_records_of_configurations_that_are_gone_are_used_again_the_oldest_first() -> None:
    table = Table.private(records=8)
    for name in ("old", "new"):
        table.states(name, advanced(*of(4))).used(0, 1, 0, 0.0)
    gc.collect()
    fresh = table.states("fresh", advanced(*of(4)))
    assert list(fresh.usage("total-tokens", 1.0)) == [0, 0, 0, 0]
    assert table.states("new", advanced(*of(4))).usage("total-tokens", 1.0)[0] == 1


def test_no_record_in_use_is_taken_away() -> None:
    mine, other = tables(2, records=8)
    kept = other.states("kept", advanced(*of(8)))
    kept.used(0, 1, 0, 0.0)
    without = mine.states("p", advanced(*of(4)))
    without.begin(3)
    assert list(without.in_flight(1.0)) == [0, 0, 0, 1]
    assert mine.states("kept", advanced(*of(8))).usage("total-tokens", 1.0)[0] == 1


def test_a_full_table_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    table = Table.private(records=4)
    held = table.states("held", advanced(*of(4)))
    with caplog.at_level(logging.WARNING):
        more: list[States] = [table.states(f"p{i}", advanced(*of(3))) for i in range(3)]
    assert [record.getMessage() for record in caplog.records] == [
        "more than 4 targets are in use: this worker balances the rest without knowing of the "
        "other workers"
    ]
    more[0].begin(2)
    assert list(more[0].in_flight(1.0)) == [0, 0, 1]
    assert list(held.in_flight(1.0)) == [0, 0, 0, 0]


def test_a_configuration_larger_than_the_table_has_a_private_one() -> None:
    states = Table.private(records=4).states("p", advanced(*of(9)))
    states.begin(8)
    assert list(states.in_flight(1.0)) == [0] * 8 + [1]


def test_the_memory_of_the_most_workers_is_small() -> None:
    assert size(64) < 64 * 1024 * 1024


moves = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans(), st.booleans()))


@given(moves)
def test_whatever_begins_and_ends_where_the_sums_are_right(
    steps: list[tuple[int, int, bool, bool]],
) -> None:
    workers = [table.states("p", TWO) for table in tables(3)]
    open_: dict[tuple[int, int], int] = {}
    now = 1.0
    for worker, index, begins, passes in steps:
        if begins:
            workers[worker].begin(index)
            open_[worker, index] = open_.get((worker, index), 0) + 1
        elif open_.get((worker, index)):
            workers[worker].end(index)
            open_[worker, index] -= 1
        now += LATER if passes else 0.0
        for states in workers:
            assert min(states.in_flight(now)) >= 0
    now += LATER
    expected = [sum(n for (_, i), n in open_.items() if i == index) for index in range(2)]
    assert all(list(states.in_flight(now)) == expected for states in workers)
