"""A line chart as inline SVG, in the colours of the page it stands in: numbers in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 460, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 28
_HUGE = 1e9  # beyond it (or NaN) a value says "diverged", and would flatten all the others
Point = tuple[float, float]


def line_chart(points: Sequence[Point], name: str, unit: str = "", percent: bool = False, dots: bool = False) -> str:
    """One series over steps. `points` are (step, value), in any order; NaN and absurdly large values are left out.

    The value axis starts at 0. `dots` marks each measured point and labels the lowest. A chart of fewer than
    two points is an empty string.
    """
    series = sorted((x, y) for x, y in points if abs(x) < _HUGE and abs(y) < _HUGE)
    if len(series) < 2 or series[0][0] == series[-1][0]:
        return ""
    first, last = series[0][0], series[-1][0]
    top = _round_up(max([1e-9, *(y for _, y in series)]))

    def at(point: Point) -> tuple[float, float]:
        x = _LEFT + (point[0] - first) / (last - first) * (WIDTH - _LEFT - _RIGHT)
        y = _TOP + (1 - min(max(point[1], 0), top) / top) * (HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    def said(value: float) -> str:
        return f"{100 * value:.3g}%" if percent else f"{value:.3g}{unit}"

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(name)} from {said(series[0][1])} to {said(series[-1][1])}">'
    ]
    for share in (0.0, 0.5, 1.0):
        y = at((first, top * share))[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{said(top * share)}</text>')
    for x, anchor in ((first, "start"), (last, "end")):
        label = f"step {x:,.0f}"
        parts.append(f'<text class="tick" x="{at((x, 0))[0]}" y="{HEIGHT - 8}" text-anchor="{anchor}">{label}</text>')
    path = " ".join(f"{x},{y}" for x, y in (at(point) for point in thinned(series)))
    parts.append(f'<polyline class="line" points="{path}"/>')
    if dots and len(series) <= 200:
        parts += [
            f'<circle class="dot" cx="{at(p)[0]}" cy="{at(p)[1]}" r="3"><title>step {p[0]:,.0f}: {said(p[1])}</title>'
            "</circle>"
            for p in series
        ]
    best = min(series, key=lambda point: point[1]) if dots else series[-1]
    x, y = at(best)
    anchor = "end" if x > WIDTH * 0.75 else "start"
    parts.append(f'<text class="mark" x="{x}" y="{max(y - 8, 10)}" text-anchor="{anchor}">{said(best[1])}</text>')
    return "".join([*parts, "</svg>"])


def thinned(series: Sequence[Point], limit: int = 400) -> list[Point]:
    """At most about `limit` points, each the mean of its neighbours: a long run must not bloat the page."""
    size = math.ceil(len(series) / limit)
    groups = [series[i : i + size] for i in range(0, len(series), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _round_up(value: float) -> float:
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999)
