"""Sizes that come nearest to what a client asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.sizes import Limits, Size, nearest, within

RATIOS = ((1, 1), (2, 3), (3, 2), (9, 16), (16, 9))


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ((1024, 1024), (1, 1)),
        ((1536, 1024), (3, 2)),
        ((1792, 1024), (16, 9)),
        ((1024, 1792), (9, 16)),
        ((99999, 1), (16, 9)),
        ((1, 99999), (9, 16)),
    ],
)
def test_the_ratio_counts(size: Size, ratio: Size) -> None:
    assert nearest(size, RATIOS) == ratio


@pytest.mark.parametrize(
    ("size", "limits", "fits"),
    [
        ((1000, 999), Limits(512 * 512, 2048 * 2048), (1000, 999)),  # as it is
        ((1024, 1024), Limits(1280 * 1280, 1440 * 1440), (1280, 1280)),
        ((4096, 4096), Limits(1280 * 1280, 1440 * 1440), (1440, 1440)),
        ((1536, 1024), Limits(512 * 512, 1440 * 1440, 1440), (1440, 960)),
        ((256, 256), Limits(512 * 512, 1440 * 1440, 1440), (512, 512)),
        ((99999, 1), Limits(512 * 512, 1440 * 1440, 1440), (1440, 16)),
    ],
)
def test_sizes_are_fitted(size: Size, limits: Limits, fits: Size) -> None:
    assert within(size, limits) == fits


@given(st.integers(100, 9999), st.integers(100, 9999))
def test_areas_are_within_their_limits(width: int, height: int) -> None:
    limits = Limits(1280 * 1280, 1440 * 1440)
    found = within((width, height), limits)
    if max(width, height) <= 4 * min(width, height):
        assert limits.least_area <= found[0] * found[1] <= limits.most_area
        assert 0.95 < (found[0] / found[1]) / (width / height) < 1.05
