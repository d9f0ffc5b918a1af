"""Nodes that tell each other what is new agree, however their exchanges cross."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.balancer.memory import Memory
from kong_ai_proxy.balancer.nodes import News, Told, Total, news, take
from kong_ai_proxy.balancer.states import Table
from tests.unit.balancer.tables import advanced, memory, target

CONFIG = advanced(target("a"), max_fails=3, fail_timeout=10000)


class Common:
    """What is common, as Redis keeps it."""

    def __init__(self) -> None:
        self.lose()

    def lose(self) -> None:
        self.usage = Told(0, 0, 0, 0)
        self.fails, self.last_failure = 0, 0.0

    def tell(self, each: News) -> Total:
        self.usage = Told(*map(sum, zip(self.usage, each.usage, strict=True)))
        self.fails = each.fails if each.is_reset else self.fails + each.fails
        if each.fails:
            self.last_failure = each.last_failure
        return Total(self.usage, self.fails, self.last_failure)


class Node:
    """One node with one worker and one target."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.memory: Memory = memory(1)
        self.states = Table(self.memory, 0).states("p", CONFIG)
        self.told: list[tuple[News, Total]] = []

    def begin_exchange(self) -> None:
        if not self.told:
            self.told = [(each, self.common.tell(each)) for each in news(self.memory)]

    def end_exchange(self) -> None:
        for each, total in self.told:
            take(self.memory, each, total)
        self.told = []

    def exchange(self) -> None:
        self.end_exchange()
        self.begin_exchange()
        self.end_exchange()

    def total(self, now: float) -> float:
        return self.states.usage("total-tokens", now)[0]


def two() -> tuple[Common, Node, Node]:
    common = Common()
    return common, Node(common), Node(common)


def test_usage_adds_up() -> None:
    _, first, second = two()
    first.states.used(0, 3, 4, 0.0)
    second.states.used(0, 10, 0, 0.0)
    for node in (first, second, first):
        node.exchange()
    assert first.total(1.0) == second.total(1.0) == 17


def test_what_is_new_during_an_exchange_is_told_by_the_next() -> None:
    common, first, _ = two()
    first.states.used(0, 3, 0, 0.0)
    first.begin_exchange()
    first.states.used(0, 4, 0, 0.0)
    first.end_exchange()
    assert first.total(1.0) == 7
    first.exchange()
    assert common.usage.prompt == 7


def test_a_success_during_an_exchange_is_not_overheard() -> None:
    common, first, second = two()
    for _ in range(3):
        first.states.failed(0, 100.0)
    first.begin_exchange()
    first.states.succeeded(0, 110.0)
    first.end_exchange()
    assert first.states.is_available(0, 110.0)
    first.exchange()
    second.exchange()
    assert common.fails == 0
    assert second.states.is_available(0, 110.0)


def test_failures_of_both_open_both() -> None:
    _, first, second = two()
    first.states.failed(0, 100.0)
    second.states.failed(0, 101.0)
    second.states.failed(0, 101.0)
    for node in (first, second, first):
        node.exchange()
    for node in (first, second):
        assert node.states.doubtful
        assert not node.states.is_available(0, 110.0)
        assert node.states.is_available(0, 111.0)


def test_a_target_that_nobody_uses_any_more_tells_its_last_news_once() -> None:
    common = Common()
    node = Node(common)
    node.states.used(0, 3, 0, 0.0)
    node.memory.forget_worker(0)
    assert len(news(node.memory)) == 1
    node.exchange()
    assert news(node.memory) == []


def test_a_record_that_is_another_targets_by_now_takes_nothing() -> None:
    common = Common()
    node = Node(common)
    node.states.used(0, 3, 0, 0.0)
    node.begin_exchange()
    node.memory.keys[0] += 1
    node.end_exchange()
    assert list(node.memory.told.prompt[:1]) == [0.0]


def test_a_lost_total_has_all_begin_anew_alike() -> None:
    common, first, second = two()
    first.states.used(0, 100, 0, 0.0)
    for _ in range(3):
        first.states.failed(0, 100.0)
    for node in (first, second):
        node.exchange()
    common.lose()
    second.states.used(0, 5, 0, 0.0)
    for node in (first, second, first):
        node.exchange()
    assert first.total(9.0) == second.total(9.0) == 5
    assert not first.states.doubtful
    assert not second.states.doubtful


NODES = 3
steps = st.lists(
    st.tuples(
        st.integers(0, NODES - 1),
        st.sampled_from(["used", "failed", "succeeded", "begin_exchange", "end_exchange"]),
    ),
    max_size=60,
)


@given(steps)
def test_however_exchanges_cross_all_agree_in_the_end(history: list[tuple[int, str]]) -> None:
    common = Common()
    every = [Node(common) for _ in range(NODES)]
    used = failed = 0
    succeeded = False
    for second, (number, what) in enumerate(history):
        node, now = every[number], 100.0 + 20 * second
        if what == "used":
            node.states.used(0, 1, 0, 0.5)
            used += 1
        elif what == "failed":
            node.states.failed(0, now)
            failed += 1
        elif what == "succeeded":
            node.states.succeeded(0, now)
            succeeded = True
        else:
            getattr(node, what)()
    for node in every * 2:
        node.exchange()
    end = 1e6
    assert [node.total(end) for node in every] == [used] * NODES
    assert [node.states.usage("cost", end)[0] for node in every] == [used / 2] * NODES
    fails = {node.memory.fails[0] for node in every}
    assert fails == {common.fails}
    assert common.fails <= failed
    if not succeeded:
        assert common.fails == failed


@pytest.mark.parametrize("resets", [1, 2])
def test_a_node_that_was_reset_and_fails_again_tells_only_the_new_ones(resets: int) -> None:
    common, first, second = two()
    now = 100.0
    first.states.failed(0, now)
    first.exchange()
    for _ in range(resets):
        now += 20
        first.states.succeeded(0, now)
        first.states.failed(0, now)
    for node in (first, second):
        node.exchange()
    assert common.fails == second.memory.fails[0] == 1
