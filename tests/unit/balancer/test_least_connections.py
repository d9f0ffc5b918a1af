"""least-connections: where there is most room."""

from __future__ import annotations

from kong_ai_proxy.balancer.least_connections import LeastConnections
from tests.unit.balancer.choosing import Figures, balancer, counts


def of(weights: list[int], under_way: list[float]) -> LeastConnections:
    figures = Figures(len(weights))
    figures.under_way = under_way
    return LeastConnections(tuple(range(len(weights))), weights, figures)


def pick(choice: LeastConnections) -> int:
    return choice.pick(choice.indices, "", 0.0)


def test_the_target_with_fewest_requests_is_asked() -> None:
    assert pick(of([100, 100, 100], [3, 1, 2])) == 1


def test_a_target_of_double_weight_bears_double() -> None:
    assert pick(of([200, 100], [2, 1])) == 0
    assert pick(of([200, 100], [4, 1])) == 1


def test_equal_targets_are_asked_in_turn() -> None:
    choice = of([100] * 4, [0, 5, 0, 0])
    assert [pick(choice) for _ in range(6)] == [0, 2, 3, 0, 2, 3]


def test_who_is_left_out_is_not_asked_and_turns_go_on() -> None:
    choice = of([100] * 4, [0] * 4)
    assert [choice.pick((0, 1, 3), "", 0.0) for _ in range(4)] == [0, 1, 3, 0]


def test_requests_that_stay_are_spread_by_weight() -> None:
    made, states = balancer("least-connections", [30, 20, 10])

    def ask() -> int | None:
        index = made.round(range(3)).next(1.0)
        assert index is not None
        states.begin(index)
        return index

    assert counts(ask, 600) == {0: 300, 1: 200, 2: 100}


def test_a_target_that_answers_slowly_gets_fewer() -> None:
    made, states = balancer("least-connections", [100, 100])
    busy: list[tuple[int, int]] = []
    found = [0, 0]
    for step in range(1000):
        for over in [each for each in busy if each[0] <= step]:
            states.end(over[1])
            busy.remove(over)
        index = made.round((0, 1)).next(1.0)
        assert index is not None
        states.begin(index)
        busy.append((step + (50 if index == 0 else 10), index))
        found[index] += 1
    assert 4 < found[1] / found[0] < 6
