"""Compares a steered campaign with the configured rules, which run on the twin of this and of further instances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlctl.core.errors import ConfigError, RlctlError
from rlctl.core.policy import Policy
from rlctl.evaluation.success_curves import Band, Curve, bands, load_rules, run_curve, spread_instances, twin_curves
from rlctl.monitoring import svg
from rlctl.monitoring.progress import Progress
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.steering.run_folder import RunFolder

_LINES = (
    ("--orange", ""),
    ("--green", "7 3"),
    ("--violet", "2 3"),
    ("--yellow", "10 3 2 3"),
    ("--red", "4 4"),
    ("--sky", ""),
    ("--grey", "7 3"),
)
"""Colour and dashes of each rule; the dashes distinguish rules without colour."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Result of one rule.

    Attributes:
        cost: node-seconds to the number of successes of the run; if ``more``, all node-seconds of the rule.
        more: the rule did not reach this number of successes.
        performance: ``cost`` over that of the run, the effective performance; None: the run has no success.
        band: band of the same number of successes over all instances.
    """

    name: str
    colour: str
    dash: str
    successes: int
    cost: float
    more: bool
    performance: float | None
    band: Band | None


@dataclass(frozen=True)
class RuleComparison:
    """The comparison with its charts.

    Attributes:
        rows: results of the rules, the cheapest first.
        own: result of the run's own policy on the twin, which shows the accuracy of the twin.
        instances: number of instances of the bands; 0: there are no bands.
        chart: the run and each rule on the same instance.
        charts: band of each rule, with the run.
    """

    run: Curve
    rows: Sequence[RuleResult] = ()
    own: RuleResult | None = None
    instances: int = 0
    problems: Sequence[str] = ()
    chart: str = ""
    charts: Mapping[str, str] = field(default_factory=dict)


def compare(run: RunFolder, with_rules: bool, instances: int, progress: Progress) -> RuleComparison:
    """Run the rules on the twin; those that cannot run are reported as problems."""
    curve = run_curve(run.timeline, str(run.header.get("policy", "the policy")), int(run.header.get("instance", 0)))
    if not with_rules:
        return _without_rules(curve, "rules were omitted on request")
    capacity = run.config.machine.capacity()
    try:
        factory = configured_campaign(run.config)
        if not factory.has_twin:
            raise ConfigError(f"campaign {factory.name} has no twin (task_model)")
        policies, problems = load_rules(run.config)
        own = _own(run, policies)
        seeds = [curve.instance, *spread_instances(run.config.seed, instances)] if policies else []
        curves_of = twin_curves(factory, capacity, policies, seeds, progress) if policies else {}
        alone = twin_curves(factory, capacity, {own.name: own}, seeds[:1])[own.name][0] if own and policies else None
    except Exception as error:  # code of another package; the report is written without comparison
        problem = str(error) if isinstance(error, RlctlError) else repr(error)
        return _without_rules(curve, f"the rules could not run: {problem}")
    rows = [_row(curve, name, curves, _LINES[n % len(_LINES)]) for n, (name, curves) in enumerate(curves_of.items())]
    rows.sort(key=lambda row: (row.more, row.cost))
    first = {name: curves[0] for name, curves in curves_of.items()}
    many = len(seeds) > 1
    return RuleComparison(
        run=curve,
        rows=rows,
        own=None if alone is None else _row(curve, alone.policy, [alone], ("--blue", "3 3")),
        instances=len(seeds) if many else 0,
        problems=problems,
        chart=_together(curve, first, alone, rows),
        charts={row.name: _alone(curve, curves_of[row.name], row) for row in rows} if many else {},
    )


def _without_rules(run: Curve, why: str) -> RuleComparison:
    return RuleComparison(run, chart=_together(run, {}, None, []), problems=[why])


def _own(run: RunFolder, policies: Mapping[str, Policy]) -> Policy | None:
    """The run's own policy, unless it is one of the rules or cannot be loaded."""
    source = run.header.get("policy_source") or run.header.get("policy")
    if not source or run.header.get("policy") in policies:
        return None
    try:
        return load_policy(run.config, str(source))
    except RlctlError:
        return None


def _row(run: Curve, name: str, curves: Sequence[Curve], line: tuple[str, str]) -> RuleResult:
    same = curves[0]
    wanted = max(run.successes, 1)
    cost = same.node_seconds_to(wanted)
    more = cost == math.inf
    cost = same.end if more else cost
    own = run.node_seconds_to(run.successes)
    performance = cost / own if run.successes and own > 0.0 else None
    band = bands(curves, wanted)[-1] if len(curves) > 1 else None
    return RuleResult(name, *line, same.successes, cost, more, performance, band)


def _together(run: Curve, first: Mapping[str, Curve], own: Curve | None, rows: Sequence[RuleResult]) -> str:
    """Two charts, of which the page shows the one that suits the width of the screen."""
    curves = [run, *first.values(), *([own] if own is not None else [])]
    charts = []
    for kind, width, height, x_count in (("broad", 860.0, 320.0, 8), ("narrow", 380.0, 260.0, 5)):
        frame = _frame(width, height, curves, max(curve.end for curve in curves))
        parts = [svg.axes(frame, "node-seconds", _whole(frame.y_most), "successes", x_count)]
        for row in rows:
            title = f"{row.name}, on the twin"
            parts.append(svg.steps(frame, first[row.name].points(), row.colour, title, 2.0, row.dash))
        if own is not None:
            parts.append(svg.steps(frame, own.points(), "--blue", f"{own.policy}, on the twin", 1.5, "3 3"))
        parts.append(svg.steps(frame, run.points(), "--blue", f"{run.policy}, this run", 3.5))
        label = "successes against node-seconds: this run, and rules on the twin of its instance"
        charts.append(f'<div class="{kind}">{svg.figure(frame, label, parts)}</div>')
    return "".join(charts)


def _alone(run: Curve, curves: Sequence[Curve], row: RuleResult) -> str:
    frame = _frame(360.0, 190.0, [run, *curves], max(run.end, *(curve.end for curve in curves)))
    parts = [svg.axes(frame, "node-seconds", _whole(frame.y_most, 4), x_count=5)]
    over = bands(curves)
    spans = [(band.low, band.high, band.successes - 1.0, float(band.successes)) for band in over if band.low < math.inf]
    parts.append(svg.boxes(frame, spans, row.colour))
    middle: list[tuple[float, float]] = [(0.0, 0.0)]
    for band in over:
        if band.median < math.inf:
            middle += [(band.median, band.successes - 1.0), (band.median, float(band.successes))]
    middle.append((frame.x_most, middle[-1][1]))
    parts.append(
        svg.steps(frame, middle, row.colour, f"{row.name}: median over {len(curves)} instances", 2.0, row.dash)
    )
    parts.append(svg.steps(frame, run.points(), "--blue", "this run", 2.5))
    return svg.figure(frame, f"{row.name} on {len(curves)} instances of the twin: median and 10-90 % band", parts)


def _frame(width: float, height: float, curves: Sequence[Curve], x_most: float) -> svg.Frame:
    most = max([1, *(curve.successes for curve in curves)])
    return svg.Frame(width, height, max(x_most, 1e-3) * 1.02, most * 1.06)


def _whole(y_most: float, count: int = 6) -> list[float]:
    return [tick for tick in svg.ticks(y_most, count) if tick == int(tick)]
