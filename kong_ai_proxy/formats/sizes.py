"""Sizes of images: the one of a model's that comes nearest to what a client asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

Size = tuple[int, int]
"""Width and height."""


class Limits(NamedTuple):
    """What sizes a model makes, in pixels."""

    least_area: int
    most_area: int
    longest: int = 1 << 16
    """Of the sides."""


def nearest(size: Size, known: Iterable[Size]) -> Size:
    """The one of `known` whose ratio is nearest; those may be ratios themselves, such as 16:9."""
    wanted = math.log(size[0] / size[1])
    return min(known, key=lambda each: abs(math.log(each[0] / each[1]) - wanted))


def within(size: Size, limits: Limits, step: int = 16) -> Size:
    """`size` where it is within the limits, else one of about its ratio that is, its sides
    multiples of `step`. The longest side counts first: an image that is very long may have less
    than the least area."""
    width, height = size
    area = width * height
    if limits.least_area <= area <= limits.most_area and max(size) <= limits.longest:
        return size
    wanted = min(max(area, limits.least_area), limits.most_area)
    scale = min(math.sqrt(wanted / area), limits.longest / max(size))
    rounded = math.ceil if scale > 1 else math.floor
    # Such as 79.99999999999999 for 80.
    times = [rounded(round(side * scale / step, 6)) for side in size]
    return max(times[0], 1) * step, max(times[1], 1) * step
