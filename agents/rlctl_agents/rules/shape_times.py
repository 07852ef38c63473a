"""Estimated times of all waiting tasks of an ensemble on all shapes, as one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl_agents.rules.ensemble import EnsembleView

Floats = NDArray[np.float64]


def shape_times(
    state: EnsembleView, waiting: Sequence[Any], allowed: Callable[[Any, Any], bool]
) -> tuple[list[Any], Floats]:
    """Shapes, and seconds of each task on each.

    Times are linear in the work of tasks that scale alike, so two of them give those of all.

    Args:
        waiting: all that wait.
        allowed: whether a task may have a shape; one that may have none gets its first.

    Returns:
        shapes, those that take little of the machine first; [task, shape] seconds, infinite where it cannot have it.
    """
    shapes = sorted({s for _, of, _ in state.alike for s in of}, key=lambda s: (state.charge(s), s.ranks, s.gpu))
    column = {shape: j for j, shape in enumerate(shapes)}
    row = {task.job.number: i for i, task in enumerate(waiting)}
    times = np.full((len(waiting), len(shapes)), math.inf)
    for group in state.alike.values():
        tasks = list(group.values())
        work = np.array([task.work_left_s for task in tasks])
        rows = [row[task.job.number] for task in tasks]
        one, other = tasks[int(work.argmin())], tasks[int(work.argmax())]
        low, span = float(work.min()), float(work.max() - work.min())
        for shape in [s for s in one.shapes if allowed(one, s)] or one.shapes[:1]:
            least = state.seconds(one, shape)
            slope = (state.seconds(other, shape) - least) / span if span > 0.0 else 0.0
            times[rows, column[shape]] = least + slope * (work - low)
    return shapes, times
