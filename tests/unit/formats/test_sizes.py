"""Sizes that come nearest to what a client asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.sizes import Limits, Size, nearest, within

SIDES = Limits(512 * 512, 1440 * 1440, shortest=512, longest=1440)
RATIO = Limits(1280 * 1280, 1440 * 1440, widest=4)
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
        ((1536, 1024), SIDES, (1440, 960)),
        ((256, 256), SIDES, (512, 512)),
        ((1400, 200), SIDES, (1440, 512)),  # its area is within the limits, its sides are not
        ((99999, 1), SIDES, (1440, 512)),
        ((99999, 1), SIDES._replace(shortest=1), (1440, 16)),
        ((2048, 512), RATIO, (2560, 640)),
        ((4096, 256), RATIO, (2560, 640)),
        ((256, 8000), RATIO, (704, 2816)),
    ],
)
def test_sizes_are_fitted(size: Size, limits: Limits, fits: Size) -> None:
    assert within(size, limits) == fits


ANY = st.integers(1, 99_999) | st.integers(100, 3000)


@given(ANY, ANY, st.sampled_from([SIDES, RATIO, Limits(768 * 768, 2048 * 2048, widest=8)]))
def test_what_is_found_is_within_the_limits(width: int, height: int, limits: Limits) -> None:
    short, long = sorted(within((width, height), limits))
    assert limits.least_area <= short * long <= limits.most_area
    assert limits.shortest <= short <= long <= limits.longest
    assert long <= limits.widest * short


@given(st.integers(100, 9999), st.integers(100, 9999))
def test_the_ratio_is_kept_where_it_can_be(width: int, height: int) -> None:
    found = within((width, height), RATIO)
    if max(width, height) <= 4 * min(width, height):
        assert 0.95 < (found[0] / found[1]) / (width / height) < 1.05
    assert (found[0] > found[1]) <= (width > height)
