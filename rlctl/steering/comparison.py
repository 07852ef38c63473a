"""A steered campaign beside the configured rules, which play the twin of the same instance and of further ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlctl.core.errors import ConfigError, RlctlError
from rlctl.core.policy import Policy
from rlctl.evaluation.success_curves import Band, Curve, bands, load_rules, run_curve, spread_instances, twin_curves
from rlctl.monitoring import svg
from rlctl.monitoring.progress import Progress
from rlctl.plugins.registry import campaign_factory, load_policy
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
"""Colour and dashes of each rule: told apart without colour, too."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule beside the run.

    Attributes:
        cost: node-seconds to the successes that the run had, or, if ``more``, those that were not enough.
        more: the rule did not get there.
        performance: ``cost`` over that of the run, the effective performance; None: the run has no success.
        band: of the same number of successes, over all instances.
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
    """The comparison, with its charts.

    Attributes:
        rows: of the rules, the cheapest first.
        own: the run's own policy on the twin: how far the twin is from the machine.
        instances: that the bands are over; at most one: there are no bands.
        complaints: about rules that could not play.
        chart: the run and each rule on the same instance.
        charts: by rule, its band with the run.
    """

    run: Curve
    rows: Sequence[RuleResult] = ()
    own: RuleResult | None = None
    instances: int = 0
    complaints: Sequence[str] = ()
    chart: str = ""
    charts: Mapping[str, str] = field(default_factory=dict)


def compare(run: RunFolder, with_rules: bool, instances: int, progress: Progress) -> RuleComparison:
    """Let the rules play; whatever cannot is complained about, and the rest goes on."""
    curve = run_curve(run.timeline, str(run.header.get("policy", "the policy")), int(run.header.get("instance", 0)))
    if not with_rules:
        return _without_rules(curve, "rules were left out on request")
    section = run.config.campaign
    try:
        factory = campaign_factory(section.name, section.options)
        if not factory.has_twin:
            raise ConfigError(f"campaign {section.name} has no twin (task_model)")
    except RlctlError as error:
        return _without_rules(curve, f"the rules could not play: {error}")
    policies, complaints = load_rules(run.config)
    own = _own(run, policies)
    capacity = run.config.machine.capacity()
    seeds = [curve.instance, *spread_instances(run.config.seed, instances)] if policies else []
    played: dict[str, list[Curve]] = {}
    try:
        if policies:
            played = twin_curves(factory, capacity, policies, seeds, progress)
        alone = twin_curves(factory, capacity, {own.name: own}, seeds[:1])[own.name][0] if own and policies else None
    except Exception as error:  # another package's twin or rule; a report without comparison is better than none
        said = str(error) if isinstance(error, RlctlError) else repr(error)
        return _without_rules(curve, f"the rules could not play: {said}")
    rows = [_row(curve, name, curves, _LINES[n % len(_LINES)]) for n, (name, curves) in enumerate(played.items())]
    rows.sort(key=lambda row: (row.more, row.cost))
    first = {name: curves[0] for name, curves in played.items()}
    many = len(seeds) > 1
    return RuleComparison(
        run=curve,
        rows=rows,
        own=None if alone is None else _row(curve, alone.policy, [alone], ("--blue", "3 3")),
        instances=len(seeds) if many else 0,
        complaints=complaints,
        chart=_together(curve, first, alone, rows),
        charts={row.name: _alone(curve, played[row.name], row) for row in rows} if many else {},
    )


def _without_rules(run: Curve, why: str) -> RuleComparison:
    return RuleComparison(run, chart=_together(run, {}, None, []), complaints=[why])


def _own(run: RunFolder, policies: Mapping[str, Policy]) -> Policy | None:
    """The run's own policy, unless it is one of the rules, or gone."""
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
    cost = same.cost(wanted)
    more = cost == math.inf
    cost = same.end if more else cost
    own = run.cost(run.successes)
    performance = cost / own if run.successes and own > 0.0 else None
    band = bands(curves, wanted)[-1] if len(curves) > 1 else None
    return RuleResult(name, *line, same.successes, cost, more, performance, band)


def _together(run: Curve, first: Mapping[str, Curve], own: Curve | None, rows: Sequence[RuleResult]) -> str:
    """Drawn twice, for a desktop and for a phone; the page shows one of them."""
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
