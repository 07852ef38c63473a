"""Draws the results of a family as one SVG picture, which follows the light or dark mode of the reader."""

from __future__ import annotations

import math
from itertools import cycle

from rlctl.benchmark import result_rows as rows
from rlctl.benchmark.family import PORTFOLIO
from rlctl.benchmark.result_rows import FamilyResults
from rlctl.benchmark.results_page import order
from rlctl.monitoring.palette import css_declarations
from rlctl.monitoring.svg import Frame, axes, line, steps, text, ticks

_WIDTH, _LINE, _LABELS = 860.0, 22.0, 300.0
_CURVES = 260.0
_COLOURS = ("--blue", "--red", "--green", "--orange", "--violet")
_STYLE = (
    "svg{{background:{0};font:13px system-ui,sans-serif}}text{{fill:{1}}}.grid{{stroke:{2}}}"
    ".axis{{stroke:{1};fill:none}}"
)


def picture(results: FamilyResults) -> str:
    """Above, the cost per success of each system with its interval; below, mean successes against cost."""
    found = [one for name in order(results) if (one := results.of(rows.COST, name)) is not None and one.median]
    height = 30.0 + _LINE * len(found) + 45.0
    parts = [_costs(results, height), f'<g transform="translate(0 {height + 20:g})">{_curves(results)}</g>']
    light, dark = _STYLE.format("#ffffff", "#1f2328", "#e4e7ea"), _STYLE.format("#14181d", "#e6e9ec", "#2c333a")
    style = (
        f"<style>svg{{{css_declarations(False)}}}{light}@media (prefers-color-scheme: dark)"
        f"{{svg{{{css_declarations(True)}}}{dark}}}</style>"
    )
    whole = height + 20.0 + _CURVES
    size = f'viewBox="0 0 {_WIDTH:g} {whole:g}" width="{_WIDTH:g}" height="{whole:g}"'
    label = f'role="img" aria-label="Results of {results.family}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>{style}{"".join(parts)}</svg>\n'


def _costs(results: FamilyResults, height: float) -> str:
    found = [one for name in order(results) if (one := results.of(rows.COST, name)) is not None and one.median]
    if not found:
        return ""
    ends = [math.log10(x) for one in found for x in (one.low, one.high, one.median) if x]
    least, most = min(ends) - 0.03, max(ends) + 0.03
    frame = Frame(_WIDTH, height, most, 1.0, left=_LABELS, top=24.0, x_least=least)
    labels = {math.log10(x): f"{x:g}" for x in _round_numbers(10**least, 10**most)}
    unit = found[0].unit
    parts = [axes(frame, f"{unit}, with 95 % interval", [], x_labels=labels)]
    for n, one in enumerate(found):
        y = frame.top + _LINE * (n + 0.6)
        assert one.median is not None
        colour = "--blue" if one.system == results.made.get("judged") else "--red"
        colour = colour if one.system in (results.made.get("judged"), results.chosen.get("rule")) else "--grey"
        low, high = (frame.x(math.log10(x)) if x else frame.x(most) for x in (one.low, one.high))
        at = frame.x(math.log10(one.median))
        title = f"{one.system}: {one.median:.4g}"
        parts.append(line([(low, y), (high, y)], colour, title, width=4.0))
        parts.append(
            f'<circle cx="{at:.1f}" cy="{y:.1f}" r="5" style="fill:var({colour})"><title>{title}</title></circle>'
        )
        parts.append(text(_LABELS - 8, y + 4, one.system, "end"))
    return "".join(parts)


def _curves(results: FamilyResults) -> str:
    curves = {name: points for name, points in results.curves.items() if name != PORTFOLIO}
    if not curves:
        return ""
    most = max(max(points) for points in curves.values()) or 1.0
    frame = Frame(_WIDTH, _CURVES, 1.0, most * 1.02, left=60.0, right=_LABELS)
    parts = [axes(frame, "share of the cost of the chosen rule's campaign", ticks(most, 5), "share of the goal")]
    for n, ((name, points), colour) in enumerate(zip(curves.items(), cycle(_COLOURS), strict=False)):
        shares = [i / (len(points) - 1) for i in range(len(points))]
        parts.append(steps(frame, list(zip(shares, points, strict=True)), colour, name))
        y = frame.top + 18.0 * (n + 1)
        parts.append(line([(_WIDTH - _LABELS + 12, y - 4), (_WIDTH - _LABELS + 36, y - 4)], colour, width=3.0))
        parts.append(text(_WIDTH - _LABELS + 42, y, name, "start"))
    return "".join(parts)


def _round_numbers(least: float, most: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or ticks at equal distances where these are too few."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5) if least <= m * 10.0**p <= most]
    return found if len(found) >= 3 else [x for x in ticks(most, 6, least) if x > 0.0]
