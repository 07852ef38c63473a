"""Writes the results of a policy, and of rules beside it, to TensorBoard; for real and simulated campaigns alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlctl.monitoring.summary_writer import SummaryWriter
from rlctl.monitoring.tags import RULES

if TYPE_CHECKING:
    from rlctl.evaluation.success_curves import Curve

_POINTS = 100


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
    old = list(folder.glob("*tfevents*"))
    with SummaryWriter(folder) as writer:
        yield writer
    for file in old:
        file.unlink(missing_ok=True)
