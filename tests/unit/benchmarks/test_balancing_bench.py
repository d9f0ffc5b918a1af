"""What the figures and pictures of balancing rest on. Nothing is timed here."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from benchmarks.balancing import chart, measure, report, simulation
from benchmarks.balancing.simulation import PHASES, SCENARIOS, TARGETS, Outcome, Scenario

A, B, C, D = range(len(TARGETS))
WELL, SLOW, FAILS, AGAIN = range(len(PHASES))
BY_NAME = {scenario.algorithm: scenario for scenario in SCENARIOS}
any_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=list(BY_NAME))


@cache
def simulated(algorithm: str) -> Outcome:
    return simulation.run(BY_NAME[algorithm])


def shares(algorithm: str, phase: int) -> list[float]:
    return simulated(algorithm).shares(phase)


# ---- what the simulation says


@any_scenario
def test_the_picture_in_the_documentation_is_current(scenario: Scenario) -> None:
    path = simulation.PICTURES / f"{scenario.algorithm}.svg"
    drawn = simulation.picture(scenario, simulated(scenario.algorithm))
    assert path.read_text("utf-8") == drawn, "run: python -m benchmarks.balancing.simulation"


@any_scenario
def test_of_thousands_of_requests_none_is_lost(scenario: Scenario) -> None:
    outcome = simulated(scenario.algorithm)
    assert outcome.requests > 5000
    assert outcome.lost == 0
    assert sum(each.answered for each in outcome.asked) == outcome.requests


@any_scenario
def test_a_target_that_fails_is_left_to_probes(scenario: Scenario) -> None:
    algorithm = scenario.algorithm
    failed = [each for each in simulated(algorithm).asked if not each.answered]
    assert {each.target for each in failed} == {C}
    # Those under way when the breaker opened, then one every ten seconds.
    assert len([each for each in failed if each.at % simulation.PHASE > 5]) <= 6
    assert shares(algorithm, FAILS)[C] < 0.01
    assert shares(algorithm, AGAIN)[C] == pytest.approx(shares(algorithm, WELL)[C], abs=0.03)


@pytest.mark.parametrize("algorithm", ["round-robin", "consistent-hashing"])
def test_shares_are_those_of_the_weights_of_the_targets_that_are_well(algorithm: str) -> None:
    for phase in (WELL, SLOW):
        assert shares(algorithm, phase) == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.03)
    assert shares(algorithm, FAILS) == pytest.approx([4 / 8, 3 / 8, 0, 1 / 8], abs=0.03)


def test_least_connections_sends_a_slow_target_less() -> None:
    assert shares("least-connections", WELL) == pytest.approx([0.25] * 4, abs=0.01)
    assert shares("least-connections", SLOW)[B] < 0.1


def test_lowest_usage_evens_out_tokens() -> None:
    assert shares("lowest-usage", WELL) == pytest.approx([4 / 9, 2 / 9, 2 / 9, 1 / 9], abs=0.03)


def test_lowest_usage_does_not_send_everything_to_a_target_that_was_out() -> None:
    after = list(simulated("lowest-usage").over_time())[AGAIN * 20 : AGAIN * 20 + 5]
    assert max(share[C] for share in after) < 0.5


def test_lowest_latency_prefers_the_quickest() -> None:
    assert shares("lowest-latency", WELL)[B] > 0.87
    assert shares("lowest-latency", SLOW)[B] < 0.1
    assert shares("lowest-latency", SLOW)[C] > 0.8
    assert shares("lowest-latency", AGAIN)[B] > 0.87
    assert min(shares("lowest-latency", AGAIN)) > 0.001


def test_priority_asks_lower_tiers_only_while_the_first_is_out() -> None:
    assert shares("priority", WELL) == [0, 0, 1, 0]
    assert shares("priority", FAILS) == pytest.approx([0.5, 0.5, 0, 0], abs=0.01)


def test_semantic_falls_back_to_catchall() -> None:
    assert shares("semantic", WELL) == pytest.approx([0.25, 0.25, 0.4, 0.1], abs=0.03)
    assert shares("semantic", FAILS) == pytest.approx([0.25, 0.25, 0, 0.5], abs=0.03)


def test_the_same_seed_is_the_same_simulation() -> None:
    scenario = BY_NAME["round-robin"]
    assert simulation.run(scenario) == simulated("round-robin")


# ---- pictures


@any_scenario
def test_a_picture_is_xml_whose_texts_have_room(scenario: Scenario) -> None:
    svg = ElementTree.fromstring(
        simulation.picture(scenario, simulated(scenario.algorithm)).encode()
    )
    texts = list(svg.iter("{http://www.w3.org/2000/svg}text"))
    rows: dict[str, list[tuple[float, float]]] = {}
    for text in texts:
        width = 8 * len(text.text or "")
        x = float(text.attrib["x"])
        left = {"middle": x - width / 2, "end": x - width}.get(text.get("text-anchor", ""), x)
        assert left >= -1
        assert left + width <= chart.WIDTH + 8
        rows.setdefault(text.attrib["y"], []).append((left, left + width))
    for row in rows.values():
        row.sort()
        assert all(end < begin for (_, end), (begin, _) in pairwise(row))


def test_an_area_has_the_height_of_its_share() -> None:
    series = [chart.Series("A & B", [0.75, 0.5]), chart.Series("C", [0.25, 0.5])]
    drawn = chart.svg("title", ["one", "two"], 60, series)
    assert "A &amp; B" in drawn
    assert f'd="M{chart.LEFT},{chart.BOTTOM}V199.5H398.0V155.0H740.0V244.0' in drawn


# ---- figures


@pytest.mark.usefixtures("one_round")
def test_every_algorithm_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SINGLE_CHOICES", 2)
    table = list(report.choices(measure.rows(0.0, targets=4)))
    for algorithm in measure.ALGORITHMS:
        assert sum(line.startswith(f"| {algorithm} |") for line in table) == 1


@pytest.mark.parametrize("algorithm", measure.ALGORITHMS)
def test_what_is_timed_are_choices(algorithm: str) -> None:
    case = measure.Case(algorithm, 10)
    first, second = case.first(), case.second()
    assert first is not None
    assert second is not None
    case.open_a_breaker()
    assert case._states.doubtful


def test_figures_are_put_beside_their_goal_as_on_a_machine_of_speed_1() -> None:
    rows = [
        measure.Row("round-robin", measure.Figure([30.0], [2.0]), measure.Figure([50.0], [2.0]))
    ]
    line = list(report.choices(rows))[-1]
    assert "| 30.0 (30.0 to 30.0) | 15.0 |" in line
    assert "| 50.0 (50.0 to 50.0) | 25.0, missed |" in line
