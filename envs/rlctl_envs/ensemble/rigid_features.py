"""What networks read where jobs have fixed ranks: numbers about within -2 to 2, computed for all rows at once.

Times are compared with ``objective.bound_s``, as slowdowns are, and processors with the machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlctl.core.sets import SetLayout
from rlctl_envs.ensemble.choices import RIGID_ORDERS, Choice
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.state import EnsembleState

GLOBALS = 12
RUNNING = 6
OWN = 14
"""Numbers of a choice before those that say which orders it is the first of."""
CHOICE = OWN + len(RIGID_ORDERS) + 1

Numbers = NDArray[np.float64]


class _Release(NamedTuple):
    """Running jobs by their expected ends: seconds from now, and the processors that are free then."""

    in_s: Numbers
    free: Numbers


def layout(options: EnsembleOptions) -> SetLayout:
    """What is there once, then the choices and the running jobs."""
    return SetLayout(GLOBALS, ((options.slots, CHOICE), (options.observed, RUNNING)), prior=CHOICE - 1)


def observe(state: EnsembleState, choices: Sequence[Choice | None]) -> NDArray[np.float32]:
    """The observation: what there is once, then the choices and running jobs, row by row."""
    options, bound_s, total = state.options, state.options.objective.bound_s, max(1, state.total_cores)
    x = np.zeros(layout(options).length, np.float32)
    rows = x[GLOBALS : GLOBALS + options.slots * CHOICE].reshape(options.slots, CHOICE)
    release = _releases(state, x[GLOBALS + options.slots * CHOICE :].reshape(options.observed, RUNNING), total)
    x[:GLOBALS] = _globals(state, release, total)
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
    when = np.minimum(np.searchsorted(release.free, ranks), len(release.in_s) - 1)
    delay_s, free = release.in_s[when], max(1, state.free_cores)
    area = run_s * ranks
    waiting = len(queue)
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
        np.searchsorted(np.sort(queue.run_s * queue.ranks), area) / waiting,
        np.searchsorted(queue.submit_s, [task.job.submit_s for task in tasks]) / waiting,
    )
    rows[at, :OWN] = np.array(own).T
    for i, _, first in found:
        if first:
            rows[i, OWN : OWN + len(RIGID_ORDERS)] = first
    return np.clip(x, -5.0, 5.0)


def _releases(state: EnsembleState, rows: NDArray[np.float32], total: int) -> _Release:
    """When processors come free; fills the rows of the running jobs."""
    running = sorted(state.running.values(), key=attrgetter("expected_s"))
    in_s = np.maximum(np.array([task.expected_s for task in running]) - state.now_s, 0.0)
    ranks = np.array([float(task.shape.ranks) for task in running])
    free = state.free_cores + np.cumsum(ranks)
    count = min(len(running), len(rows))
    if count:
        bound_s, began_s = state.options.objective.bound_s, np.array([task.started_s for task in running[:count]])
        rows[:count] = np.array(
            (
                np.ones(count),
                ranks[:count] / total,
                np.log2(ranks[:count]) / 8.0,
                np.log10(1.0 + in_s[:count] / bound_s) / 2.5,
                np.log10(1.0 + (state.now_s - began_s) / bound_s) / 2.5,
                free[:count] / total,
            )
        ).T
    return _Release(np.concatenate([[0.0], in_s]), np.concatenate([[float(state.free_cores)], free]))


def _globals(state: EnsembleState, release: _Release, total: int) -> list[float]:
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
        math.log10(1.0 + float(release.in_s[-1]) / bound_s) / 2.5,
        float(np.mean(queue.ranks <= state.free_cores)) if len(queue) else 0.0,
        float(state.names_next),
        float(state.may_wait),
    ]
