"""What all stores have in common."""

from __future__ import annotations

import math
import sys

import pytest

from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors.store import Space, StoreError, open_store, unit

SPACE = Space("5a", 3, "cosine")


def test_vectors_are_brought_to_length_1() -> None:
    assert unit(SPACE, [3, 0, 4.0]) == [0.6, 0.0, 0.8]


@pytest.mark.parametrize("vector", [[], [1.0, 2.0], [1.0] * 4])
def test_vectors_of_another_length_are_refused(vector: list[float]) -> None:
    text = rf"config\.vectordb\.dimensions: 3, .* a vector of {len(vector)} numbers"
    with pytest.raises(StoreError, match=text):
        unit(SPACE, vector)


@pytest.mark.parametrize(
    "vector",
    [[0.0, 0.0, 0.0], [math.nan, 1.0, 1.0], [math.inf, 1.0, 1.0], [1.7e308, 1.7e308, 1.7e308]],
)
def test_vectors_without_a_direction_are_refused(vector: list[float]) -> None:
    with pytest.raises(StoreError, match="without a direction"):
        unit(SPACE, vector)


@pytest.mark.parametrize(("strategy", "library"), [("redis", "redis"), ("redis", "numpy")])
def test_a_missing_library_names_what_to_install(
    strategy: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith("kong_ai_proxy.vectors.") and not name.endswith(".store"):
            monkeypatch.delitem(sys.modules, name)
        if name.split(".")[0] == library:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    record = {"strategy": strategy, "dimensions": 3, "distance_metric": "cosine"}
    text = rf"strategy {strategy} needs {library}: pip install 'kong-ai-proxy\[{strategy}\]'"
    with pytest.raises(StoreError, match=text):
        open_store(Vectordb.model_validate(record))
