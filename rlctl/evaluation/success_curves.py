"""Step curves of successes against node-seconds, of a steered campaign and of policies on its twin, and their tables.

A success counts at the next decision, or at the end of the campaign; its cost are the node-seconds allocated until
then, in real and in simulated campaigns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlctl.config.schema import RuleEntry
from rlctl.core.errors import RlctlError
from rlctl.evaluation.rollout import TOGETHER, draw_instances, roll_out
from rlctl.monitoring.progress import Progress, Silent, working
from rlctl.monitoring.tags import RULES
from rlctl.plugins.registry import load_policy

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.campaign_factory import CampaignFactory
    from rlctl.core.machine import Capacity
    from rlctl.core.policy import Policy
    from rlctl.environments.campaign_env import Episode
    from rlctl.monitoring.summary_writer import SummaryWriter
    from rlctl.monitoring.timeline import Timeline

SPREAD = 4
"""Purpose of instances that show the spread over instances, beside those of ``rlctl.evaluation.rollout``; none of them
is held out."""

LOW, MEDIAN, HIGH = 0.1, 0.5, 0.9
"""Quantiles of a band."""

_POINTS = 100


@dataclass(frozen=True, slots=True)
class Curve:
    """Successes of one campaign against node-seconds.

    Attributes:
        node_seconds: node-seconds at each success, in order.
        end: node-seconds at its end, or so far.
        ended: whether it has ended.
        reached: whether it reached its goal.
        cost: its cost if the campaign defines one other than node-seconds.
    """

    policy: str
    instance: int
    node_seconds: tuple[float, ...]
    end: float
    ended: bool = True
    reached: bool = False
    cost: float | None = None

    @property
    def successes(self) -> int:
        """Number of successes."""
        return len(self.node_seconds)

    def node_seconds_to(self, successes: int) -> float:
        """Node-seconds until a number of successes; infinite if it was not reached.

        >>> curve = Curve("feedback", 7, (20.0, 50.0), 60.0)
        >>> curve.node_seconds_to(2), curve.node_seconds_to(3)
        (50.0, inf)
        """
        if successes <= 0:
            return 0.0
        return self.node_seconds[successes - 1] if successes <= self.successes else math.inf

    def points(self) -> list[tuple[float, int]]:
        """Corners of the step curve, as (node-seconds, successes), from the origin to the end.

        >>> Curve("feedback", 7, (20.0, 50.0), 60.0).points()
        [(0.0, 0), (20.0, 0), (20.0, 1), (50.0, 1), (50.0, 2), (60.0, 2)]
        """
        corners = [(0.0, 0)]
        for count, cost in enumerate(self.node_seconds):
            corners += [(cost, count), (cost, count + 1)]
        return corners if corners[-1][0] == self.end else [*corners, (self.end, self.successes)]


@dataclass(frozen=True, slots=True)
class Band:
    """Node-seconds to a number of successes, over instances; infinite where too few instances reach it.

    Attributes:
        share: share of the instances that reach it.
        low, median, high: 10 %, 50 % and 90 % quantiles of the node-seconds.
    """

    successes: int
    share: float
    low: float
    median: float
    high: float


def run_curve(timeline: Timeline, policy: str = "", instance: int = 0) -> Curve:
    """Curve of a steered campaign, ended or not."""
    nodes, summary = timeline.capacity.nodes, timeline.summary
    seen = [(nodes * answer.asked_s, answer.successes) for answer in timeline.decisions]
    end = nodes * timeline.end_s
    if summary is not None:
        end = float(summary["node_seconds"])
        seen.append((end, int(summary["successes"])))
    reached = summary is not None and bool(summary["reached"])
    return Curve(policy, instance, _rises(seen), end, ended=summary is not None, reached=reached)


def twin_curves(
    factory: CampaignFactory,
    capacity: Capacity,
    policies: Mapping[str, Policy],
    instances: Sequence[int],
    progress: Progress | None = None,
) -> dict[str, list[Curve]]:
    """Run every policy on every instance of the twin, many campaigns in step.

    Returns:
        the curves of each policy, in the order of the instances.
    """
    entries = [(name, instance) for instance in instances for name in policies]
    curves: dict[str, list[Curve]] = {name: [] for name in policies}
    progress = progress or Silent()
    with working(progress, "running the rules on the twin", len(entries), "campaigns"):
        for at in range(0, len(entries), TOGETHER):
            part = entries[at : at + TOGETHER]
            seen: list[list[tuple[float, int]]] = [[] for _ in part]
            watch = partial(_note_successes, seen, progress)
            played = roll_out(factory, capacity, [(policies[name], instance) for name, instance in part], watch)
            for (name, instance), points, one in zip(part, seen, played, strict=True):
                cost = None if one.cost == one.node_seconds else one.cost
                end, reached = one.node_seconds, one.reached
                curve = Curve(policies[name].name, instance, _rises(points), end, reached=reached, cost=cost)
                curves[name].append(curve)
    return curves


def _note_successes(seen: list[list[tuple[float, int]]], progress: Progress, n: int, episode: Episode) -> None:
    seen[n].append((episode.driver.ledger.node_seconds, episode.campaign.outcome().successes))
    progress.advance(1.0 if episode.decision is None else 0.0)


def bands(curves: Sequence[Curve], most: int | None = None) -> list[Band]:
    """Bands of the node-seconds to 1, 2, 3 ... successes, over instances.

    Args:
        curves: one per instance.
        most: largest number of successes; None: the most of any instance.
    """
    most = max((curve.successes for curve in curves), default=0) if most is None else most
    return [_band(curves, count) for count in range(1, most + 1)] if curves else []


def spread_instances(seed: int, count: int) -> list[int]:
    """Instances that show the spread over instances."""
    return draw_instances(seed, SPREAD, count)


def load_rules(config: Config) -> tuple[dict[str, Policy], list[str]]:
    """The rules among ``config.policies``, and error messages for those that cannot be loaded."""
    loaded: dict[str, Policy] = {}
    problems: list[str] = []
    for name, entry in config.policies.items():
        if isinstance(entry, RuleEntry) or not config.resolve(entry).is_dir():
            try:
                loaded[name] = load_policy(config, name)
            except RlctlError as error:
                problems.append(str(error))
    return loaded, problems


def summary_scalars(curves: Sequence[Curve]) -> dict[str, float]:
    """Rates and cost per success over campaigns; without a success there is no cost per success."""
    successes = sum(curve.successes for curve in curves)
    figures = {
        "winning/success_rate": sum(curve.successes > 0 for curve in curves) / len(curves),
        "winning/goal_rate": sum(curve.reached for curve in curves) / len(curves),
    }
    if successes:
        figures["winning/node_seconds_per_success"] = sum(curve.end for curve in curves) / successes
        costs = [curve.cost for curve in curves if curve.cost is not None]
        if len(costs) == len(curves):
            figures["winning/cost_per_success"] = sum(costs) / successes
    return figures


def write_success_curve(writer: SummaryWriter, curves: Sequence[Curve]) -> None:
    """Write mean successes against whole node-seconds; a campaign that has ended keeps its successes."""
    ends = max(curve.end for curve in curves)
    # A dict by step keeps the last of several points within a node-second.
    points = {round(cost): cost for cost in np.linspace(0.0, ends, _POINTS).tolist()}
    for step, cost in points.items():
        reached = [np.searchsorted(curve.node_seconds, cost, side="right") for curve in curves]
        writer.scalars({"winning/successes": float(np.mean(reached))}, step)


def results_table(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Results by policy, as a Markdown table."""
    lines = ["| policy | campaigns | successes | node-seconds | per success | goal |", "|---|---|---|---|---|---|"]
    for name, of in curves.items():
        successes, cost = sum(curve.successes for curve in of), sum(curve.end for curve in of)
        each = f"{cost / successes:.1f}" if successes else "-"
        goal = f"{sum(curve.reached for curve in of) / len(of):.0%}"
        lines.append(f"| {name} | {len(of)} | {successes} | {cost:.1f} | {each} | {goal} |")
    return "\n".join(lines)


def write_rules(folder: Path, rules: Mapping[str, Sequence[Curve]], steps: Sequence[int]) -> None:
    """Write a sub-run for each rule: its successes against cost, and its results as horizontal lines.

    Args:
        folder: TensorBoard folder of the run.
        rules: curves by rule.
        steps: steps of the points of the horizontal lines.
    """
    for name, curves in rules.items():
        with replacing_writer(folder / RULES / name) as writer:
            for step in steps:
                writer.scalars(summary_scalars(curves), step)
            write_success_curve(writer, curves)


@contextmanager
def replacing_writer(folder: Path) -> Iterator[SummaryWriter]:
    """A writer whose file replaces the earlier files of the folder, also in an open TensorBoard."""
    from rlctl.monitoring.summary_writer import SummaryWriter

    old = list(folder.glob("*tfevents*"))
    with SummaryWriter(folder) as writer:
        yield writer
    for file in old:
        file.unlink(missing_ok=True)


def _rises(points: Iterable[tuple[float, int]]) -> tuple[float, ...]:
    """Node-seconds of each success, from points (node-seconds, successes)."""
    costs: list[float] = []
    for cost, successes in points:
        costs += [cost] * (successes - len(costs))
    return tuple(costs)


def _band(curves: Sequence[Curve], successes: int) -> Band:
    costs = sorted(curve.node_seconds_to(successes) for curve in curves)
    low, median, high = (costs[max(math.ceil(q * len(costs)) - 1, 0)] for q in (LOW, MEDIAN, HIGH))
    return Band(successes, sum(cost < math.inf for cost in costs) / len(costs), low, median, high)
