"""Distances that are computed here."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.vectors.distance import Table, packed
from kong_ai_proxy.vectors.store import Match, Metric, Space, StoreError, unit

COSINE = Space("5a", 2, "cosine")
EUCLIDEAN = Space("5a", 2, "euclidean")
# 0, 90 and 180 degrees from east, and 60.
POINTS = {
    "east": [5.0, 0.0],
    "north": [0.0, 0.1],
    "west": [-1.0, 0.0],
    "sixty": [0.5, math.sqrt(0.75)],
}


def table(space: Space, vectors: dict[str, list[float]]) -> Table:
    return Table(space, {name: packed(space, vector) for name, vector in vectors.items()})


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (COSINE, [("east", 0.0), ("sixty", 0.5), ("north", 1.0), ("west", 2.0)]),
        (EUCLIDEAN, [("east", 0.0), ("sixty", 0.5), ("north", math.sqrt(0.5)), ("west", 1.0)]),
    ],
)
def test_distances_are_as_documented(space: Space, expected: list[Match]) -> None:
    found = table(space, POINTS).nearest(space, [2.0, 0.0], 9)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [far for _, far in found] == pytest.approx([far for _, far in expected], abs=1e-7)


@pytest.mark.parametrize("most", [0, 1, 3, 4, 5])
def test_no_more_than_asked_for(most: int) -> None:
    assert len(table(COSINE, POINTS).nearest(COSINE, [1.0, 0.0], most)) == min(most, 4)


def test_of_equal_ones_the_first_comes_first() -> None:
    vectors = {"b": [0.0, 1.0], "a": [0.0, 2.0], "c": [0.0, -1.0]}
    found = table(COSINE, vectors).nearest(COSINE, [1.0, 0.0], 9)
    assert [match.name for match in found] == ["b", "a", "c"]


def test_packed_vectors_are_floats_with_the_lowest_byte_first() -> None:
    assert packed(COSINE, [3, 4]) == struct.pack("<2f", 0.6, 0.8)


@pytest.mark.parametrize("vector", [[1.0], [0.0, 0.0], [math.nan, 1.0]])
def test_vectors_that_do_not_fit_are_refused(vector: list[float]) -> None:
    with pytest.raises(StoreError):
        packed(COSINE, vector)
    with pytest.raises(StoreError):
        table(COSINE, POINTS).nearest(COSINE, vector, 1)


@pytest.mark.parametrize("data", [b"", b"1234567", b"1234", b"123456789012"])
def test_data_of_another_length_is_no_table(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Table(COSINE, {"a": data})


numbers = st.floats(-100.0, 100.0).filter(lambda number: number == 0.0 or abs(number) > 1e-3)
vectors = st.lists(numbers, min_size=4, max_size=4).filter(any)


@settings(max_examples=50, deadline=None)
@given(
    given_vectors=st.lists(vectors, min_size=1, max_size=6),
    asked=vectors,
    metric=st.sampled_from(["cosine", "euclidean"]),
)
def test_distances_are_those_of_the_definition(
    given_vectors: list[list[float]], asked: list[float], metric: Metric
) -> None:
    space = Space("5a", 4, metric)
    named = {str(number): vector for number, vector in enumerate(given_vectors)}
    found = table(space, named).nearest(space, asked, 9)
    assert {match.name for match in found} == set(named)
    assert found == sorted(found, key=lambda match: match.distance)
    for match in found:
        defined = definition(metric, unit(space, named[match.name]), unit(space, asked))
        assert match.distance == pytest.approx(defined, abs=1e-6)


def definition(metric: Metric, one: Sequence[float], other: Sequence[float]) -> float:
    if metric == "euclidean":
        return math.dist(one, other) / 2.0
    return 1.0 - math.fsum(a * b for a, b in zip(one, other, strict=True))
