"""What tests of figures share."""

from __future__ import annotations

import gc

import pytest

from benchmarks.conversion import measure


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of everything. A benchmark collects garbage before each of its runs: all that the
    tests before this one left in memory is kept out of that, which takes most of the time else."""
    monkeypatch.setattr(measure, "ROUNDS", 1)
    gc.freeze()  # and for good, as what was collected is: see tests/conftest.py
