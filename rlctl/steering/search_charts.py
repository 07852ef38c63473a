"""Draws what evaluations have found: values against cost and parameters, parallel coordinates, a Pareto front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlctl.core.errors import RlctlError
from rlctl.core.findings import MINIMIZE
from rlctl.monitoring import svg
from rlctl.monitoring.formatting import format_value
from rlctl.steering.evaluation_table import EvaluationTable, Row, read_csv
from rlctl.steering.run_folder import RunFolder
from rlctl.steering.run_names import recorded_start

MOST_DOTS = 3000
"""Of more evaluations, the best and a regular sample of the others are drawn."""
MOST_LINES = 400
_MOST_SCATTERS = 12
_MOST_LABELS = 8
_OUTLIER = 3.0
_BESIDE = (("--green", "7 3"), ("--violet", "2 3"), ("--yellow", "10 3 2 3"), ("--red", "4 4"))
"""Colours and dashes of other runs."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values on a line.

    Attributes:
        least, most: its ends.
        place: position of a value; None: it has none.
        labels: texts at positions; empty: round numbers.
    """

    name: str
    least: float
    most: float
    place: Callable[[Any], float | None]
    labels: Mapping[float, str]

    def share(self, value: Any) -> float | None:
        """Position in [0, 1]."""
        at = self.place(value)
        return None if at is None else min(max((at - self.least) / (self.most - self.least), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class SearchCharts:
    """Charts of a search as SVG; empty where there is nothing to draw.

    Attributes:
        progress: value against node-seconds, by objective, for broad and narrow screens.
        scatters: value of the first objective against each parameter, by parameter.
        parallel: parallel coordinates of parameters and values.
        fronts: pairs of objectives.
        drawn: number of evaluations that are drawn.
        beside: colour and dashes of each run beside this one, by its name.
    """

    progress: Mapping[str, str]
    scatters: Mapping[str, str]
    parallel: str
    fronts: Mapping[str, str]
    drawn: int
    beside: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def runs_beside(run: RunFolder) -> dict[str, Sequence[Row]]:
    """Evaluations of other runs of the same search in the same folder, by policy and name, the newest first."""
    found: dict[str, Sequence[Row]] = {}
    others = [path for path in run.path.absolute().parent.iterdir() if path.name != run.path.absolute().name]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            header, rows = recorded_start(path), read_csv(path)
        except (RlctlError, OSError, ValueError):
            continue
        same = header.get("game_hash") == run.header.get("game_hash") is not None
        if same and rows and len(found) < len(_BESIDE):
            found[f"{header.get('policy')}, {path.name}"] = rows
    return found


def search_charts(
    table: EvaluationTable, nodes: int, beside: Mapping[str, Sequence[Row]] | None = None
) -> SearchCharts:
    """Draw the charts.

    Args:
        nodes: of the allocation.
        beside: evaluations of other runs.
    """
    beside = beside or {}
    findings = table.findings
    values = [*findings.objectives] or list(findings.results[:1])
    best = {id(table.rows[place]) for place in findings.best}
    ended = [row for row in table.rows if row["ended_s"] is not None]
    valued = [row for row in ended if all(_finite(row.get(name)) for name in values)]
    if not values or not valued:
        return SearchCharts({}, {}, "", {}, 0)
    counting = [row for row in valued if row.get("stage", findings.stage) == findings.stage]
    some = _sample(counting or valued, best, MOST_DOTS)
    axes = {name: _axis(name, some, findings.objectives.get(name)) for name in values}
    inputs = {name: _axis(name, ended, log=name in findings.logarithmic) for name in findings.parameters}
    first = axes[values[0]]
    lost = [row for row in ended if row["feasible"] is None][:MOST_DOTS]
    ranked = table.best(len(some) // 10).rows if len(findings.objectives) == 1 else []
    good = {id(row) for row in ranked}
    return SearchCharts(
        progress={name: _progress(table, valued, ended, axes[name], nodes, beside) for name in values},
        scatters={
            name: _scatter(axis, first, some, best, 280.0, 190.0, lost)
            for name, axis in [*inputs.items()][:_MOST_SCATTERS]
        },
        parallel=_parallel([*({**inputs, **axes}).values()], _sample(some, best, MOST_LINES), best, good),
        fronts={
            f"{one} and {other}": _scatter(axes[one], axes[other], some, best, 420.0, 300.0)
            for one, other in itertools.combinations(findings.objectives, 2)
        },
        drawn=len(some),
        beside=dict(zip(beside, _BESIDE, strict=False)) if len(findings.objectives) == 1 else {},
    )


def _progress(
    table: EvaluationTable,
    valued: Sequence[Row],
    ended: Sequence[Row],
    axis: Axis,
    nodes: int,
    beside: Mapping[str, Sequence[Row]],
) -> str:
    """Two charts, of which the page shows the one that suits the width of the screen."""
    name, findings = axis.name, table.findings
    charts = []
    most = max(1e-3, *(nodes * float(row["ended_s"]) for row in ended)) * 1.02
    several = sorted({str(row.get("stage", "")) for row in valued})
    colours = dict(zip(several, itertools.cycle(("--sky", "--orange", "--violet", "--yellow"))))
    colours[findings.stage] = "--sky"
    lost = [row for row in ended if row["feasible"] is None]
    for kind, width, height, count in (("broad", 860.0, 320.0, 8), ("narrow", 380.0, 260.0, 5)):
        frame = svg.Frame(width, height, most, axis.most, left=62.0, x_least=0.0, y_least=axis.least)
        parts = [svg.axes(frame, "node-seconds", svg.ticks(axis.most, 6, axis.least), name, count)]
        for stage in several:
            of = [row for row in _sample(valued, set(), MOST_DOTS) if str(row.get("stage", "")) == stage]
            at = [(frame.x(nodes * row["ended_s"]), frame.y(row[name]), _title(row, name)) for row in of]
            parts.append(svg.dots(at, colours[stage], 3.0))
        bottom = frame.y(axis.least)
        at = [(frame.x(nodes * float(row["ended_s"])), bottom, _title(row, "kind")) for row in lost]
        parts.append(svg.dots(at[:MOST_DOTS], "--red", 3.0))
        if len(findings.objectives) == 1:
            aim = findings.objectives[name]
            for (other, rows), (colour, dash) in zip(beside.items(), _BESIDE, strict=False):
                if curve := _best_so_far(rows, aim, name, findings.stage, nodes):
                    shown = [(x, y) for x, y in curve if x <= most]
                    parts.append(svg.steps(frame, shown or curve[:1], colour, other, 2.0, dash))
            if curve := _best_so_far(valued, aim, name, findings.stage, nodes):
                parts.append(svg.steps(frame, [*curve, (most / 1.02, curve[-1][1])], "--blue", f"best {name}", 3.0))
        label = f"{name} of {len(valued)} evaluations against node-seconds"
        charts.append(f'<div class="{kind}">{svg.figure(frame, label, parts)}</div>')
    return "".join(charts)


def _best_so_far(rows: Sequence[Row], aim: str | None, name: str, stage: str, nodes: int) -> list[tuple[float, float]]:
    """Corners of the best value that counts against node-seconds."""
    corners: list[tuple[float, float]] = []
    able = [row for row in rows if row.get("feasible") and _finite(row.get(name)) and row.get("ended_s") is not None]
    for row in sorted(able, key=lambda row: float(row["ended_s"])):
        if aim is None or row.get("stage", stage) != stage:
            continue
        at, value = nodes * float(row["ended_s"]), float(row[name])
        if not corners:
            corners.append((at, value))
        elif (value < corners[-1][1]) == (aim == MINIMIZE) and value != corners[-1][1]:
            corners += [(at, corners[-1][1]), (at, value)]
    return corners


def _scatter(
    across: Axis, up: Axis, rows: Sequence[Row], best: set[int], width: float, height: float, lost: Sequence[Row] = ()
) -> str:
    """Dots of evaluations; those without a result lie on the axis."""
    frame = svg.Frame(
        width, height, across.most, up.most, left=56.0, x_least=across.least, y_least=up.least, bottom=38.0
    )
    parts = [svg.axes(frame, across.name, svg.ticks(up.most, 4, up.least), up.name, 4, across.labels)]
    for colour, radius, wanted in (("--sky", 2.6, False), ("--blue", 4.4, True)):
        at = []
        for row in rows:
            x, y = across.place(row.get(across.name)), up.place(row.get(up.name))
            if x is not None and y is not None and (id(row) in best) is wanted:
                at.append((frame.x(x), frame.y(y), _title(row, up.name)))
        parts.append(svg.dots(at, colour, radius, 0.7 if not wanted else 1.0))
    placed = [(x, row) for row in lost if (x := across.place(row.get(across.name))) is not None]
    parts.append(svg.dots([(frame.x(x), frame.y(up.least), _title(row, "kind")) for x, row in placed], "--red", 2.6))
    return svg.figure(frame, f"{up.name} against {across.name}", parts)


def _parallel(axes: Sequence[Axis], rows: Sequence[Row], best: set[int], good: set[int]) -> str:
    """A vertical axis for each quantity and a line for each evaluation; good ones and the best stand out."""
    if len(axes) < 2:
        return ""
    width, height, top, bottom = max(640.0, 110.0 * len(axes)), 300.0, 34.0, 278.0
    xs = np.linspace(60.0, width - 60.0, len(axes)).tolist()
    frame = svg.Frame(width, height, 1.0, 1.0)
    parts: list[str] = []
    for row in sorted(rows, key=lambda row: (id(row) in best, id(row) in good)):
        shares = [axis.share(row.get(axis.name)) for axis in axes]
        points = [(x, bottom - at * (bottom - top)) for x, at in zip(xs, shares, strict=True) if at is not None]
        colour, wide = ("--blue", 2.6) if id(row) in best else ("--sky", 1.4) if id(row) in good else ("--grey", 0.8)
        parts.append(svg.line(points, colour, _title(row, axes[-1].name), wide))
    for x, axis in zip(xs, axes, strict=True):
        parts.append(f'<path class="axis" d="M{x:.1f} {top:g}V{bottom:g}"/>')
        parts.append(svg.text(x, 14.0, axis.name, "middle"))
        labels = axis.labels or {at: svg.tick_label(at) for at in svg.ticks(axis.most, 4, axis.least)}
        for at, label in labels.items():
            y = bottom - (at - axis.least) / (axis.most - axis.least) * (bottom - top)
            parts.append(f'<path class="tick" d="M{x - 4:.1f} {y:.1f}H{x + 4:.1f}"/>')
            parts.append(svg.text(x - 7.0, y + 4.0, label, "end"))
    return svg.figure(frame, "parallel coordinates of all evaluations", parts)


def _axis(name: str, rows: Sequence[Row], aim: str | None = None, log: bool = False) -> Axis:
    found = [row[name] for row in rows if row.get(name) is not None]
    if not all(_finite(value) for value in found):
        return _named_axis(name, found)
    numbers = np.array([float(value) for value in found] or [0.0])
    if log:
        numbers = np.log10(numbers)
    low, high = float(numbers.min()), float(numbers.max())
    if aim is not None and len(numbers) > 10:  # a few bad values would press all others onto a line
        q10, q90 = np.quantile(numbers, (0.1, 0.9))
        low = max(low, q10 - _OUTLIER * (q90 - q10)) if aim != MINIMIZE else low
        high = min(high, q90 + _OUTLIER * (q90 - q10)) if aim == MINIMIZE else high
    margin = 0.04 * (high - low) or 0.5 * max(abs(high), 1.0)
    least, most = low - margin, high + margin
    if not log:
        return Axis(name, least, most, lambda value: float(value) if _finite(value) else None, {})
    labels = _log_labels(least, most)
    return Axis(name, least, most, lambda value: math.log10(value) if _finite(value) and value > 0 else None, labels)


def _log_labels(least: float, most: float) -> dict[float, str]:
    """Powers of ten, or with 2 and 5 between them where that leaves few."""
    decades = range(math.floor(least), math.ceil(most) + 1)
    for factors in ((1,), (1, 2, 5)):
        values = [factor * 10.0**power for power in decades for factor in factors]
        labels = {math.log10(v): svg.tick_label(v) for v in values if least <= math.log10(v) <= most}
        if len(labels) > 2:
            break
    return dict(list(labels.items())[:: max(1, len(labels) // 6)])


def _named_axis(name: str, found: Sequence[Any]) -> Axis:
    """Values that are no numbers, in the order in which they appear."""
    places = {value: float(n) for n, value in enumerate(dict.fromkeys(map(str, found)))}
    each = max(1, math.ceil(len(places) / _MOST_LABELS))
    labels = {at: value[:14] for value, at in places.items() if at % each == 0}
    return Axis(name, -0.5, max(len(places), 1) - 0.5, lambda value: places.get(str(value)), labels)


def _sample(rows: Sequence[Row], best: set[int], most: int) -> Sequence[Row]:
    """The best ones, and a regular sample of the others."""
    if len(rows) <= most:
        return rows
    each = math.ceil(len(rows) / most)
    return [row for n, row in enumerate(rows) if n % each == 0 or id(row) in best]


def _title(row: Row, name: str) -> str:
    return f"evaluation {row['evaluation']}: {name} {format_value(row.get(name))}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
