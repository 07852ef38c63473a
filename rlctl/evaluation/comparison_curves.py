"""Where a policy, or a rule beside it, stands: the same few curves, whether the campaigns were real or simulated."""

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
    """Cost per success and rates over campaigns; without any success there is no cost per success."""
    successes = sum(curve.successes for curve in curves)
    figures = {
        "winning/success_rate": sum(curve.successes > 0 for curve in curves) / len(curves),
        "winning/goal_rate": sum(curve.reached for curve in curves) / len(curves),
    }
    if successes:
        figures["winning/node_seconds_per_success"] = sum(curve.end for curve in curves) / successes
        prices = [curve.price for curve in curves if curve.price is not None]
        if len(prices) == len(curves):
            figures["winning/cost_per_success"] = sum(prices) / successes
    return figures


def write_success_curve(board: SummaryWriter, curves: Sequence[Curve]) -> None:
    """Mean successes of a campaign against whole node-seconds; a campaign that has ended keeps what it had."""
    ends = max(curve.end for curve in curves)
    # By step, so that of several points within one node-second the last one stays.
    points = {round(cost): cost for cost in np.linspace(0.0, ends, _POINTS).tolist()}
    for step, cost in points.items():
        reached = [np.searchsorted(curve.node_seconds, cost, side="right") for curve in curves]
        board.scalars({"winning/successes": float(np.mean(reached))}, step)


def results_table(curves: Mapping[str, Sequence[Curve]]) -> str:
    """A table in Markdown, by policy."""
    lines = ["| policy | campaigns | successes | node-seconds | per success | goal |", "|---|---|---|---|---|---|"]
    for name, of in curves.items():
        successes, cost = sum(curve.successes for curve in of), sum(curve.end for curve in of)
        each = f"{cost / successes:.1f}" if successes else "-"
        goal = f"{sum(curve.reached for curve in of) / len(of):.0%}"
        lines.append(f"| {name} | {len(of)} | {successes} | {cost:.1f} | {each} | {goal} |")
    return "\n".join(lines)


def write_rules(folder: Path, rules: Mapping[str, Sequence[Curve]], steps: Sequence[int]) -> None:
    """Write the sub-runs of the rules: what each reaches for which cost, and its figures as level lines.

    Args:
        folder: the run's TensorBoard folder.
        rules: by name, their curves.
        steps: where the level lines have points.
    """
    for name, curves in rules.items():
        with replacing_writer(folder / RULES / name) as board:
            for step in steps:
                board.scalars(summary_scalars(curves), step)
            write_success_curve(board, curves)


@contextmanager
def replacing_writer(folder: Path) -> Iterator[SummaryWriter]:
    """A board whose file replaces what the folder had; a TensorBoard that is open drops it too."""
    old = list(folder.glob("*tfevents*"))
    with SummaryWriter(folder) as board:
        yield board
    for file in old:
        file.unlink(missing_ok=True)
