"""consistent-hashing: the same value goes to the same target, and few values ever move."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.balancer.consistent_hashing import ConsistentHashing, seeds
from kong_ai_proxy.balancer.round_robin import round_robin
from tests.unit.balancer.choosing import balancer, counts, is_chance

KEYS = [f"user-{number}" for number in range(4000)]


def of(weights: dict[str, int], slots: int = 10_000) -> ConsistentHashing:
    """Targets by name."""
    everybody, values = tuple(range(len(weights))), list(weights.values())
    otherwise = round_robin(everybody, values)
    return ConsistentHashing(everybody, values, seeds(list(weights)), slots, otherwise)


def homes(weights: dict[str, int], keys: Sequence[str] = KEYS) -> dict[str, str]:
    """Where each key goes."""
    choice, names = of(weights), list(weights)
    return {key: names[choice.pick(choice.indices, key, 0.0)] for key in keys}


def test_a_value_always_goes_to_the_same_target() -> None:
    weights = dict.fromkeys("abcd", 100)
    first, again = homes(weights), homes(weights, KEYS[::-1])
    assert first == again
    assert set(first.values()) == set(weights)


def test_values_go_where_they_went_in_an_earlier_version() -> None:
    found = homes(dict.fromkeys("abcd", 100), KEYS[:12])
    assert "".join(found.values()) == "accaabccacbd"


def test_shares_are_those_of_the_weights() -> None:
    choice = of({"a": 40, "b": 30, "c": 20, "d": 10}, slots=65_536)
    keys = iter(f"value {number}" for number in range(20_000))
    found = counts(lambda: choice.pick(choice.indices, next(keys), 0.0), 20_000)
    assert is_chance(found, {0: 40, 1: 30, 2: 20, 3: 10})


def test_a_hundred_equal_targets_have_equal_shares_of_the_slots() -> None:
    choice = of({f"target {number}": 100 for number in range(100)}, slots=5_000)
    keys = iter(f"value {number}" for number in range(20_000))
    found = counts(lambda: choice.pick(choice.indices, next(keys), 0.0), 20_000)
    assert len(found) == 100
    assert max(found.values()) < 1.8 * 200


NAMES = st.dictionaries(st.text(max_size=4), st.integers(1, 1000), min_size=3, max_size=8)


@given(NAMES, st.data())
@settings(max_examples=25, deadline=None)
def test_a_target_that_goes_moves_its_own_values_only(
    weights: dict[str, int], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(weights)))
    keys = KEYS[:300]
    before = homes(weights, keys)
    after = homes({name: weight for name, weight in weights.items() if name != gone}, keys)
    assert all(after[key] == before[key] for key in keys if before[key] != gone)


@given(NAMES, st.data())
@settings(max_examples=25, deadline=None)
def test_a_greater_weight_moves_values_only_there(
    weights: dict[str, int], data: st.DataObject
) -> None:
    greater = data.draw(st.sampled_from(sorted(weights)))
    keys = KEYS[:300]
    before, after = homes(weights, keys), homes({**weights, greater: 2 * weights[greater]}, keys)
    assert all(after[key] in (before[key], greater) for key in keys)


def test_a_target_that_comes_takes_its_share_from_all() -> None:
    before = homes(dict.fromkeys("abcd", 100))
    after = homes(dict.fromkeys("abcde", 100))
    moved = [key for key in KEYS if after[key] != before[key]]
    assert {after[key] for key in moved} == {"e"}
    assert len(moved) / len(KEYS) == pytest.approx(1 / 5, rel=0.1)
    taken = {name: sum(before[key] == name for key in moved) for name in "abcd"}
    assert all(count == pytest.approx(len(moved) / 4, rel=0.3) for count in taken.values())


def test_the_order_of_targets_makes_no_difference() -> None:
    weights = {"a": 40, "b": 30, "c": 20, "d": 10}
    assert homes(weights) == homes(dict(reversed(weights.items())))


def test_values_of_a_target_that_is_out_go_to_all_others_by_weight() -> None:
    choice = of({"a": 40, "b": 30, "c": 20, "d": 10})
    lost = [key for key in KEYS if choice.pick(choice.indices, key, 0.0) == 0]
    found = [choice.pick((1, 2, 3), key, 0.0) for key in lost]
    assert is_chance({each: found.count(each) for each in (1, 2, 3)}, {1: 30, 2: 20, 3: 10})
    assert found == [choice.pick((1, 2, 3), key, 0.0) for key in lost]


def test_a_subset_keeps_values_whose_target_is_in_it() -> None:
    made, _ = balancer("consistent-hashing", [100] * 5)
    for key in KEYS[:500]:
        home = made.round(range(5), key=key).next(0.0)
        if home in (1, 2, 4):
            assert made.round([1, 2, 4], key=key).next(0.0) == home


def test_equal_targets_share_the_values() -> None:
    made, _ = balancer("consistent-hashing", [100, 100], names=["same", "same"])
    keys = iter(KEYS)
    found = counts(lambda: made.round((0, 1), key=next(keys)).next(0.0), len(KEYS))
    assert found[0] == pytest.approx(len(KEYS) / 2, rel=0.05)


def test_requests_without_a_value_take_turns() -> None:
    made, _ = balancer("consistent-hashing", [2, 1])
    assert counts(lambda: made.round((0, 1)).next(0.0), 30) == {0: 20, 1: 10}


@pytest.mark.parametrize("slots", [10, 65_536])
def test_the_least_and_most_slots(slots: int) -> None:
    choice = of({"a": 1, "b": 65_535}, slots=slots)
    assert choice.pick(choice.indices, "value", 0.0) in (0, 1)
    assert choice.pick((0,), "value", 0.0) == 0


def test_any_text_is_a_value() -> None:
    choice = of({"a": 1, "b": 1})
    for key in (" ", "ü", "\udcff", "x" * 100_000):
        assert choice.pick(choice.indices, key, 0.0) in (0, 1)
