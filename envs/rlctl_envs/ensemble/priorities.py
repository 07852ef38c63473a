"""Scores by which rules order waiting tasks: the highest starts first. They read what users know, never the truth.

Each takes the estimated seconds of the task on the ranks that it was submitted for, those ranks, and how long it has
waited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlctl_envs.ensemble.active_task import ActiveTask


def fifo(task: ActiveTask, now_s: float) -> float:
    """First come, first served."""
    return -task.arrived_s - 1e-9 * task.job.number


def sjf(task: ActiveTask, now_s: float) -> float:
    """Shortest job first."""
    return -task.work_left_s


def lpt(task: ActiveTask, now_s: float) -> float:
    """Longest processing time first (Graham 1969)."""
    return task.work_left_s


def wfp3(task: ActiveTask, now_s: float) -> float:
    """``(wait / run)^3 ranks`` (Tang, Lan, Desai, Buettner 2009)."""
    ratio = (now_s - task.arrived_s) / max(task.reference_s, 1e-9)
    return ratio**3 * task.job.requested_ranks


def f1(task: ActiveTask, now_s: float) -> float:
    """``log10(run) ranks + 870 log10(arrival)``, smallest first (Carastan-Santos and de Camargo 2017)."""
    run = math.log10(max(task.reference_s, 1.0)) * task.job.requested_ranks
    return -(run + 870.0 * math.log10(max(task.arrived_s, 1.0)))


def due(task: ActiveTask, now_s: float) -> float:
    """Highest priority first; among equals the earliest deadline."""
    return task.job.priority - 1e-9 * min(task.deadline_s, 1e8)


def critical(task: ActiveTask, now_s: float) -> float:
    """The longest way to the end first: list scheduling by critical path (Hu 1961; Topcuoglu et al. 2002)."""
    return task.path_s


ORDERS: Mapping[str, Callable[[ActiveTask, float], float]] = {
    "fifo": fifo,
    "sjf": sjf,
    "lpt": lpt,
    "wfp3": wfp3,
    "f1": f1,
    "due": due,
    "critical": critical,
}
"""By name."""
