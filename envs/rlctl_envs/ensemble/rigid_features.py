"""What networks read where jobs have fixed ranks: numbers about within -2 to 2, computed for all rows at once.

Times are compared with ``objective.bound_s``, as slowdowns are, and processors with the machine.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.sets import SetLayout
from rlctl_envs.ensemble.choices import RIGID_ORDERS, Choice
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.state import EnsembleState

GLOBALS = 12
RUNNING = 6
OWN = 17
"""Numbers of a choice before those that say which orders it is the first of."""
CHOICE = OWN + len(RIGID_ORDERS) + 1

Numbers = NDArray[np.float64]


def layout(options: EnsembleOptions) -> SetLayout:
    """What is there once, then the choices and the running jobs."""
    return SetLayout(GLOBALS, ((options.slots, CHOICE), (options.observed, RUNNING)), prior=CHOICE - 1)


def observe(state: EnsembleState, choices: Sequence[Choice | None]) -> NDArray[np.float32]:
    """The observation: what there is once, then the choices and running jobs, row by row."""
    options, bound_s, total = state.options, state.options.objective.bound_s, max(1, state.total_cores)
    x = np.zeros(layout(options).length, np.float32)
    rows = x[GLOBALS : GLOBALS + options.slots * CHOICE].reshape(options.slots, CHOICE)
    _running(state, x[GLOBALS + options.slots * CHOICE :].reshape(options.observed, RUNNING), total)
    in_s, then = state.releases()
    x[:GLOBALS] = _globals(state, float(in_s[-1]), total)

    def until_free_s(ranks: Any) -> Numbers:
        return np.asarray(in_s[np.minimum(np.searchsorted(then, ranks), len(in_s) - 1)])

    if choices[0] is not None:
        rows[0, :2] = 1.0
    queue = state.queue
    found = [(i, choice.task, choice.first) for i, choice in enumerate(choices) if choice and choice.task is not None]
    if queue is None or not found:
        return x
    tasks, at = [task for _, task, _ in found], [i for i, _, _ in found]
    run_s = np.array([task.reference_s for task in tasks])
    ranks = np.array([float(task.job.requested_ranks) for task in tasks])
    wait_s = state.now_s - np.array([task.arrived_s for task in tasks])
    delay_s, free = until_free_s(ranks), max(1, state.free_cores)
    area, areas = run_s * ranks, queue.run_s * queue.ranks
    waiting = len(queue)
    # The job that small ones should not hold up: that of the smallest area among those that do not fit.
    blocked = np.where(queue.ranks > state.free_cores, areas, np.inf)
    held = int(blocked.argmin())
    held_s = float(until_free_s(queue.ranks[held])) if blocked[held] < np.inf else 0.0
    own = (
        np.ones(len(tasks)),
        np.zeros(len(tasks)),
        ranks <= state.free_cores,
        np.log10(run_s / bound_s) / 1.5 - 1.0,
        np.log2(ranks) / 8.0,
        ranks / total,
        np.minimum(ranks / free, 2.0),
        np.log10(1.0 + wait_s / bound_s) / 2.5,
        np.log10((wait_s + run_s) / np.maximum(run_s, bound_s) + 1.0) / 2.0,
        np.log10(area / (bound_s * total)) / 2.0,
        np.log10(1.0 + delay_s / bound_s) / 2.5,
        np.searchsorted(np.sort(queue.run_s), run_s) / waiting,
        np.searchsorted(np.sort(areas), area) / waiting,
        np.searchsorted(queue.submit_s, [task.job.submit_s for task in tasks]) / waiting,
        (ranks <= state.free_cores) & (run_s <= held_s),
        np.log10(1.0 + (ranks <= state.free_cores) * (run_s - held_s).clip(0.0) / bound_s * (held_s > 0.0)) / 2.5,
        [held_s > 0.0 and task is queue.tasks[held] for task in tasks],
    )
    rows[at, :OWN] = np.array(own).T
    for i, _, first in found:
        if any(first):
            rows[i, OWN : OWN + len(RIGID_ORDERS)] = first
    return np.clip(x, -5.0, 5.0)


def _running(state: EnsembleState, rows: NDArray[np.float32], total: int) -> None:
    """Fill the rows of the jobs that are expected to end first."""
    tasks = heapq.nsmallest(len(rows), state.running.values(), key=attrgetter("expected_s"))
    if not tasks:
        return
    bound_s, ranks = state.options.objective.bound_s, np.array([float(task.shape.ranks) for task in tasks])
    left_s = np.maximum(np.array([task.expected_s for task in tasks]) - state.now_s, 0.0)
    passed_s = state.now_s - np.array([task.started_s for task in tasks])
    columns = (
        np.ones(len(tasks)),
        ranks / total,
        np.log2(ranks) / 8.0,
        np.log10(1.0 + left_s / bound_s) / 2.5,
        np.log10(1.0 + passed_s / bound_s) / 2.5,
        (state.free_cores + np.cumsum(ranks)) / total,
    )
    rows[: len(tasks)] = np.array(columns).T


def _globals(state: EnsembleState, last_s: float, total: int) -> list[float]:
    queue, bound_s, now_s = state.queue, state.options.objective.bound_s, state.now_s
    assert queue is not None
    unit = bound_s * total
    area = float(queue.run_s @ queue.ranks)
    running = max(state.promised_rank_s - state.busy_ranks * now_s, 0.0)
    rate = float(np.sum(1.0 / np.maximum(queue.run_s, bound_s)))
    arrived = len(state.tasks)
    return [
        math.log1p(len(queue)) / 3.0,
        math.log1p(len(state.running)) / 3.0,
        state.free_cores / total,
        math.log10(1.0 + area / unit) / 2.5,
        math.log10(1.0 + running / unit) / 2.5,
        math.log10(1.0 + bound_s * rate) / 2.0,
        math.log10(1.0 + now_s / bound_s) / 2.5 - 1.0,
        math.log10(1.0 + now_s / (bound_s * max(arrived, 1))) - 1.0,
        math.log10(1.0 + last_s / bound_s) / 2.5,
        float(np.mean(queue.ranks <= state.free_cores)) if len(queue) else 0.0,
        float(state.names_next),
        float(state.may_wait),
    ]
