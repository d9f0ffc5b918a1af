"""Sizes of images: the one of a model's that comes nearest to what a client asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

Size = tuple[int, int]
"""Width and height."""


class Limits(NamedTuple):
    """What sizes a model makes, in pixels."""

    least_area: int
    most_area: int
    shortest: int = 1
    """Of the sides."""
    longest: int = 1 << 16
    widest: int = 1 << 16
    """How many times one side may have the other."""


def nearest(size: Size, known: Iterable[Size]) -> Size:
    """The one of `known` whose ratio is nearest; those may be ratios themselves, such as 16:9."""
    wanted = math.log(size[0] / size[1])
    return min(known, key=lambda each: abs(math.log(each[0] / each[1]) - wanted))


def within(size: Size, limits: Limits, step: int = 16) -> Size:
    """`size` where it is within the limits, else one that is: of its ratio, or of the nearest one
    that is possible, and its sides multiples of `step`. The limits of sides and ratio count first:
    an image that is very long may have less than the least area."""
    short, long = sorted(size)
    widest = min(limits.widest, limits.longest / limits.shortest)
    ratio = min(long / short, widest)
    area = short * long
    if (
        limits.least_area <= area <= limits.most_area
        and limits.shortest <= short <= long <= limits.longest
        and ratio == long / short
    ):
        return size
    wanted = min(max(area, limits.least_area), limits.most_area)
    exact = min(max(math.sqrt(wanted / ratio), limits.shortest), limits.longest / ratio)
    found = _stepped(math.floor, exact, ratio, widest, step)
    if found[0] * found[1] < limits.least_area:
        found = _stepped(math.ceil, exact, ratio, widest, step)
    return found if size[0] <= size[1] else (found[1], found[0])


def _stepped(
    rounded: Callable[[float], int], short: float, ratio: float, widest: float, step: int
) -> Size:
    """Both sides as multiples of `step`, the shorter one first."""
    # Rounded before as well: such as 79.99999999999999 for 80.
    sides = [max(rounded(round(side / step, 6)), 1) for side in (short, short * ratio)]
    return sides[0] * step, min(sides[1], math.floor(round(sides[0] * widest, 6))) * step
