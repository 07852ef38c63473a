"""What networks read: the state as numbers about within -2 to 2, and the choices, running tasks and nodes as sets."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from operator import attrgetter
from statistics import median

import numpy as np
from numpy.typing import NDArray

from rlctl.core.sets import SetLayout
from rlctl_envs.ensemble.active_task import ActiveTask
from rlctl_envs.ensemble.choices import SHORTLISTS, Choice, ChoiceKind
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.state import EnsembleState

GLOBALS = 18
CHOICE = 23 + len(SHORTLISTS)
"""Numbers for each choice; the first says whether there is one, the last whether a rule would take it."""
RUNNING = 11
GROUP = 9


def layout(options: EnsembleOptions) -> SetLayout:
    """What is there once, then the choices, the running tasks, and the groups of nodes."""
    sets = ((options.slots, CHOICE), (options.observed, RUNNING), (options.groups, GROUP))
    return SetLayout(GLOBALS, sets, prior=CHOICE - 1)


def observe(state: EnsembleState, choices: Sequence[Choice | None], goal_left: float) -> NDArray[np.float32]:
    """The observation: what there is once, then the choices, running tasks and groups of nodes, row by row."""
    options = state.options
    view = _View(state)
    x = np.zeros(layout(options).length, np.float32)
    x[:GLOBALS] = view.globals(goal_left)
    at = GLOBALS
    for choice in choices:
        if choice is not None:
            x[at : at + CHOICE] = view.choice(choice)
        at += CHOICE
    for task in heapq.nsmallest(options.observed, state.running.values(), key=attrgetter("expected_s")):
        x[at : at + RUNNING] = view.running(task)
        at += RUNNING
    at = GLOBALS + options.slots * CHOICE + options.observed * RUNNING
    for group in state.groups[: options.groups]:
        kind, nodes = group.kind, max(group.nodes, 1)
        x[at : at + GROUP] = (
            1.0,
            group.nodes / max(1, state.pool.nodes),
            group.nodes * kind.cores / max(1, state.total_cores),
            group.free_cores / (nodes * kind.cores),
            group.free_gpus / (nodes * kind.gpus) if kind.gpus else 0.0,
            math.log2(kind.cores) / 6.0,
            kind.gpus / 8.0,
            float(kind.gpus > 0),
            math.log2(max(kind.memory_mb, 1) / kind.cores) / 16.0 if kind.memory_mb else 0.0,
        )
        at += GROUP
    return np.clip(x, -5.0, 5.0)


class _View:
    """The state in the units of one decision."""

    def __init__(self, state: EnsembleState) -> None:
        self.state = state
        self.unit_s = state.unit_s
        self.cores = max(1, state.total_cores)
        waiting = state.waiting_work_s
        running = max(state.promised_rank_s - state.busy_ranks * state.now_s, 0.0)
        self._areas: dict[int, float] = {}
        self.waiting_work = waiting / (self.cores * self.unit_s)
        self.horizon_s = max((waiting + running) / self.cores, 1e-6 * self.unit_s)
        self.value = 0.0
        if state.options.workload.reports:
            values = [task.reports[-1].value for task in state.running.values() if task.reports]
            self.value = median([value for value in values if value is not None] or [0.0])

    def log(self, seconds: float) -> float:
        """A time in units, as a logarithm."""
        return math.log(max(seconds, 1e-3 * self.unit_s) / self.unit_s) / 3.0

    def globals(self, goal_left: float) -> list[float]:
        state = self.state
        known = list(state.scalings.values())
        last_s = max(map(attrgetter("expected_s"), state.running.values()), default=state.now_s)
        count = max(1, len(known))
        return [
            math.log1p(len(state.waiting)) / 3.0,
            math.log1p(len(state.running)) / 3.0,
            math.log1p(len(state.blocked)) / 3.0,
            math.log1p(len(state.ended)) / 3.0,
            state.free_cores / self.cores,
            state.free_gpus / state.total_gpus if state.total_gpus else 0.0,
            self.cores / max(1, state.capacity.total_cores),
            math.log(self.waiting_work + 1e-2) / 3.0,
            self.log(self.horizon_s),
            math.log1p(state.now_s / self.unit_s) / 4.0,
            math.log1p(max(state.time_left_s, 0.0) / self.unit_s) / 4.0,
            sum(math.log10(s.serial + 1e-3) + 2.0 for s in known) / count,
            sum(4.0 * s.kappa - 1.0 for s in known) / count,
            sum(math.log(s.gain) / 2.0 for s in known) / count,
            goal_left,
            float(state.reported is not None),
            self.log(max(last_s - state.now_s, 0.0)),
            float(state.may_wait),
        ]

    def choice(self, choice: Choice) -> list[float]:
        state, kind, task = self.state, choice.kind, choice.task
        kinds = [float(kind is other) for other in ChoiceKind]
        if task is None:
            return [1.0, *kinds] + [0.0] * (CHOICE - 5)
        shape = choice.shape if kind is not ChoiceKind.STOP else task.shape
        seconds = state.seconds(task, shape)
        area = seconds * state.charge(shape)
        slack_s = task.deadline_s - state.now_s - seconds
        return [
            1.0,
            *kinds,
            self.log(task.work_left_s),
            math.log2(shape.ranks) / 5.0,
            shape.ranks / self.cores,
            min(shape.ranks / max(1, state.free_cores), 2.0),
            float(shape.gpu),
            state.efficiency(task, shape),
            self.log(seconds),
            math.log(max(seconds, 1e-6) / self.horizon_s) / 3.0,
            math.log(max(area, 1e-9) / self._least(task)),
            math.log1p((state.now_s - task.arrived_s) / max(task.reference_s, 1e-3 * self.unit_s)) / 3.0,
            task.job.priority / (1.0 + state.options.workload.priorities),
            0.0 if slack_s == math.inf else math.tanh(slack_s / (10.0 * self.unit_s)),
            *choice.first,
            *self._progress(task),
            math.log1p(task.failures),
            0.0,
        ]

    def _least(self, task: ActiveTask) -> float:
        area = self._areas.get(task.job.number)
        if area is None:
            area = self._areas[task.job.number] = max(self.state.least_area(task), 1e-9)
        return area

    def running(self, task: ActiveTask) -> list[float]:
        state = self.state
        return [
            1.0,
            task.shape.ranks / self.cores,
            math.log2(task.shape.ranks) / 5.0,
            self.log(state.now_s - task.started_s),
            self.log(task.expected_s - state.now_s),
            float(task.shape.gpu),
            float(task.job.resizable),
            *self._progress(task),
        ]

    def _progress(self, task: ActiveTask) -> list[float]:
        """Share done, how much slower than expected it goes, how long it has been stuck, what it may be worth."""
        if not task.reports:
            return [task.done, 0.0, 0.0, 0.0]
        state, last = self.state, task.reports[-1]
        expected_s = max(task.expected_s - task.started_s, 1e-9)
        share = max(last.fraction - task.begun, 1e-3) / max(1.0 - task.begun, 1e-3)
        slower = math.log(max(last.time_s - task.started_s, 1e-9) / expected_s / share) / 3.0
        since_s = next((r.time_s for r in task.reports if r.fraction >= last.fraction), last.time_s)
        stuck = math.log1p((state.now_s - since_s) / expected_s)
        return [last.fraction, slower, stuck, 0.0 if last.value is None else last.value - self.value]
