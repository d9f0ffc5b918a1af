"""Shares over time as an SVG picture: areas on top of each other, phases marked.

It has its own background and follows the reader's preference for light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 740, 66, 244
LEGEND = 300
COLOURS = ("#4477aa", "#ccbb44", "#ee6677", "#228833")
"""Distinct for all kinds of colour vision, on white and on black: Paul Tol's "bright"."""

_STYLE = """
  .ground { fill: #ffffff }
  text { font: 13px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .axis { fill: #59636e }
  .grid { stroke: #1f2328; stroke-opacity: .25 }
  .phase { stroke: #1f2328; stroke-width: 1.5; stroke-dasharray: 5 4 }
  .area { stroke: #ffffff; stroke-width: .6 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 }
    text { fill: #f0f6fc }
    .axis { fill: #9198a1 }
    .grid, .phase { stroke: #f0f6fc }
    .area { stroke: #0d1117 }
  }
"""


class Series(NamedTuple):
    """One area: what the legend says, and a share (0 to 1) for each step of the time."""

    label: str
    shares: Sequence[float]


def svg(title: str, phases: Sequence[str], seconds: float, series: Sequence[Series]) -> str:
    """The picture of at most as many series as there are COLOURS. Each phase is `seconds` long;
    the steps of the series divide them all."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, 26, title, "title"),
        *_areas(series),
        *_shares(),
        *_phases(phases, seconds),
        *_legend(series),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _areas(series: Sequence[Series]) -> Iterator[str]:
    """From the bottom up, the first on top as it is in the legend."""
    steps = len(series[0].shares)
    floor = [0.0] * steps
    for colour, (_, shares) in reversed(list(zip(COLOURS, series, strict=False))):
        ceiling = [low + share for low, share in zip(floor, shares, strict=True)]
        path = [
            f"M{LEFT},{BOTTOM}",
            *_outline(ceiling),
            *reversed(list(_outline(floor, back=True))),
        ]
        yield f'<path class="area" fill="{colour}" d="{"".join(path)}Z"/>'
        floor = ceiling


def _outline(heights: Sequence[float], *, back: bool = False) -> Iterator[str]:
    """Each height from the left to the right end of its step, or back."""
    step = (RIGHT - LEFT) / len(heights)
    for number, height in enumerate(heights):
        y = BOTTOM - height * (BOTTOM - TOP)
        yield f"V{y:.1f}H{LEFT + (number + (not back)) * step:.1f}"


def _shares() -> Iterator[str]:
    for percent in (0, 25, 50, 75, 100):
        y = BOTTOM - percent / 100 * (BOTTOM - TOP)
        yield f'<path class="grid" d="M{LEFT - 4},{y:g} H{RIGHT}"/>'
        yield _text(LEFT - 8, y + 4, f"{percent} %", "axis", "end")


def _phases(phases: Sequence[str], seconds: float) -> Iterator[str]:
    width = (RIGHT - LEFT) / len(phases)
    for number, phase in enumerate(phases):
        x = LEFT + number * width
        yield _text(x + width / 2, TOP - 12, phase, "", "middle")
        yield _text(x, BOTTOM + 20, f"{number * seconds:g} s", "axis", "middle")
        if number:
            yield f'<path class="phase" d="M{x:g},{TOP - 26} V{BOTTOM + 5}"/>'
    yield _text(RIGHT, BOTTOM + 20, f"{len(phases) * seconds:g} s", "axis", "middle")


def _legend(series: Sequence[Series]) -> Iterator[str]:
    width = (RIGHT - LEFT) / len(series)
    for number, (colour, each) in enumerate(zip(COLOURS, series, strict=False)):
        x = LEFT + number * width
        yield f'<rect x="{x:g}" y="{LEGEND - 11}" width="13" height="13" rx="2" fill="{colour}"/>'
        yield _text(x + 20, LEGEND, each.label)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    kind = f' class="{kind}"' if kind else ""
    anchor = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}"{kind}{anchor}>{escape(text)}</text>'
