"""Draws small charts as SVG: bars, step curves and bands with axes. Colours are CSS variables of the page.

Compared with a plotting library, a chart takes a few kilobytes instead of a hundred, follows the page's light or dark
mode, and its text stays text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Frame:
    """Maps data to pixels: ``x`` from ``x_least`` to ``x_most``, and ``y`` from ``y_least`` to ``y_most``."""

    width: float
    height: float
    x_most: float
    y_most: float
    left: float = 46.0
    right: float = 14.0
    top: float = 10.0
    bottom: float = 38.0
    x_least: float = 0.0
    y_least: float = 0.0

    def x(self, value: float) -> float:
        """Pixel of a value; values beyond the range lie on the edge."""
        inside = self.width - self.left - self.right
        share = (value - self.x_least) / (self.x_most - self.x_least)
        return self.left + inside * min(max(share, 0.0), 1.0)

    def y(self, value: float) -> float:
        """Pixel of a value."""
        inside = self.height - self.top - self.bottom
        share = (value - self.y_least) / (self.y_most - self.y_least)
        return self.height - self.bottom - inside * min(max(share, 0.0), 1.0)


def figure(frame: Frame, label: str, parts: Sequence[str]) -> str:
    """Join the parts to one figure; ``label`` is the description for screen readers."""
    size = f'viewBox="0 0 {frame.width:g} {frame.height:g}" style="max-width:{frame.width:g}px"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def ticks(most: float, count: int, least: float = 0.0) -> list[float]:
    """Round numbers from ``least`` to ``most``, about ``count`` of them.

    >>> ticks(29.2, 6), ticks(-1.2, 3, least=-2.9)
    ([0.0, 5.0, 10.0, 15.0, 20.0, 25.0], [-2.0])
    """
    if most <= least or not math.isfinite(most - least):
        return [least]
    rough = (most - least) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= rough * 0.999)
    return [step * i for i in range(math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9) + 1)]


def axes(
    frame: Frame,
    x_title: str,
    y_ticks: Sequence[float],
    y_title: str = "",
    x_count: int = 8,
    x_labels: Mapping[float, str] | None = None,
) -> str:
    """Grid lines, axis labels below and on the left, and titles; ``x_labels``: labels in place of round numbers."""
    left, right = frame.left, frame.width - frame.right
    top, bottom = frame.top, frame.height - frame.bottom
    parts = []
    rounded = ticks(frame.x_most, x_count, frame.x_least)
    for value, label in (x_labels or {value: tick_label(value) for value in rounded}).items():
        at = frame.x(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top:g}" y2="{bottom:g}"/>')
        parts.append(text(at, bottom + 15, label, "middle"))
    for value in y_ticks:
        at = frame.y(value)
        parts.append(f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(left - 6, at + 4, tick_label(value), "end"))
    parts.append(f'<path class="axis" d="M{left:g} {top:g}V{bottom:g}H{right:g}"/>')
    parts.append(text((left + right) / 2, frame.height - 5, x_title, "middle"))
    if y_title:
        middle = (top + bottom) / 2
        parts.append(
            f'<text x="12" y="{middle:g}" text-anchor="middle" transform="rotate(-90 12 {middle:g})">'
            f"{escape(y_title)}</text>"
        )
    return "".join(parts)


def steps(frame: Frame, points: Points, colour: str, title: str, width: float = 2.0, dash: str = "") -> str:
    """A line through the points, with a dot at its end."""
    path = "".join(f"{'L' if n else 'M'}{frame.x(x):.1f} {frame.y(y):.1f}" for n, (x, y) in enumerate(points))
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    line = f'<path d="{path}" fill="none" style="stroke:var({colour})" stroke-width="{width:g}"{dashes}/>'
    x, y = points[-1]
    dot = f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="{1.2 + width:g}" style="fill:var({colour})"/>'
    return f"<g><title>{escape(title)}</title>{line}{dot}</g>"


def boxes(frame: Frame, spans: Sequence[tuple[float, float, float, float]], colour: str) -> str:
    """Transparent filled areas (x from, x to, y from, y to)."""
    path = "".join(
        f"M{frame.x(a):.1f} {frame.y(c):.1f}H{frame.x(b):.1f}V{frame.y(d):.1f}H{frame.x(a):.1f}z"
        for a, b, c, d in spans
    )
    return f'<path d="{path}" style="fill:var({colour})" fill-opacity="0.25"/>'


def stacked(shares: Mapping[str, float], colours: Mapping[str, str], label: str, width: float = 860.0) -> str:
    """A bar of adjacent parts; ``shares`` add up to 1."""
    frame = Frame(width, 44.0, 1.0, 1.0, left=0.0, right=0.0, top=0.0, bottom=0.0)
    parts, at = [], 0.0
    for name, share in shares.items():
        if share <= 0.0:
            continue
        x, wide = frame.x(at), width * share
        parts.append(
            f'<rect x="{x:.2f}" y="4" width="{wide:.2f}" height="36" style="fill:var({colours[name]})">'
            f"<title>{escape(name)}: {100 * share:.1f} %</title></rect>"
        )
        if wide > 9.0 * len(name) + 40:
            parts.append(f'<text class="on" x="{x + 10:.1f}" y="27">{escape(name)} {100 * share:.0f} %</text>')
        at += share
    return figure(frame, label, parts)


def dots(points: Sequence[tuple[float, float, str]], colour: str, radius: float = 3.0, opacity: float = 0.75) -> str:
    """Circles at pixels, each with the text that a pointer shows."""
    circles = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"><title>{escape(title)}</title></circle>'
        for x, y, title in points
    )
    return f'<g style="fill:var({colour})" fill-opacity="{opacity:g}">{"".join(circles)}</g>'


def line(points: Points, colour: str, title: str = "", width: float = 1.0, opacity: float = 1.0) -> str:
    """A line through pixels."""
    path = "".join(f"{'L' if n else 'M'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(points))
    shown = f"<title>{escape(title)}</title>" if title else ""
    stroke = f'style="stroke:var({colour})" stroke-width="{width:g}" stroke-opacity="{opacity:g}"'
    return f'<path d="{path}" fill="none" {stroke}>{shown}</path>'


def tick_label(value: float) -> str:
    """A number beside an axis.

    >>> tick_label(0.30000000000000004), tick_label(20000.0), tick_label(-1.5e-7)
    ('0.3', '20,000', '-1.5e-07')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:,.4g}"


def text(x: float, y: float, words: str, anchor: str) -> str:
    """A text at a pixel; ``anchor``: start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
