"""The choices that a decision offers to networks: a fixed number, shortlisted from all tasks and shapes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Mask
from rlctl_envs.ensemble.active_task import ActiveTask
from rlctl_envs.ensemble.job_queue import JobQueue
from rlctl_envs.ensemble.job_request import ONE, TaskShape
from rlctl_envs.ensemble.orders import SCORES
from rlctl_envs.ensemble.state import EnsembleState

MANY = 64
"""Of more tasks that are alike not all are looked at."""

SHORTLISTS = ("fifo", "sjf", "lpt", "wfp3", "f1", "due", "critical")
"""Orders whose first tasks are offered."""
RIGID_ORDERS = tuple(SCORES)
"""The same for rigid jobs."""
LEAST_PRIOR = -2.0
"""Of a job that a rule would not start; its own choice has 1."""


class ChoiceKind(IntEnum):
    """What a choice does."""

    WAIT = 0
    STOP = 1
    RESIZE = 2
    START = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice.

    Attributes:
        task: None for waiting.
        first: for each of ``SHORTLISTS``, or ``RIGID_ORDERS``, whether the task is the first of those that may start;
            may be empty, or as long as of others, if it is the first of none.
    """

    kind: ChoiceKind
    task: ActiveTask | None = None
    shape: TaskShape = ONE
    first: tuple[bool, ...] = field(default=(False,) * len(SHORTLISTS), compare=False)

    def named(self) -> Mapping[str, Any]:
        """The same as named quantities."""
        if self.task is None:
            return {"wait": True}
        number = self.task.job.number
        if self.kind is ChoiceKind.STOP:
            return {"stop": number}
        verb = "start" if self.kind is ChoiceKind.START else "resize"
        return {verb: number, "ranks": self.shape.ranks, "gpu": self.shape.gpu}


WAITING = Choice(ChoiceKind.WAIT)


def choice_mask(choices: Sequence[Choice | None]) -> Mask:
    """Which of the choices there are."""
    return np.array([choice is not None for choice in choices], np.bool_)


def named_choice(choices: Sequence[Choice | None], indices: NDArray[np.int64]) -> Mapping[str, Any]:
    """The named quantities of a choice, by its index; a bad index as it is, for the campaign to refuse."""
    index = int(indices[0])
    choice = choices[index] if 0 <= index < len(choices) else None
    return {"choice": index} if choice is None else choice.named()


def shortlist(state: EnsembleState) -> list[Choice | None]:
    """As many as ``options.slots``, None where there is none: waiting, then stops and changes of size, then starts."""
    options = state.options
    found: list[Choice | None] = [WAITING if state.may_wait else None]
    if state.queue is not None:
        found += _rigid_starts(state, state.queue, options.slots - 1)
        return found + [None] * (options.slots - len(found))
    control = _controls(state)[: options.control_slots]
    found += control
    found += [None] * (options.control_slots - len(control))
    found += _starts(state, options.slots - len(found))
    return found + [None] * (options.slots - len(found))


def _rigid_starts(state: EnsembleState, queue: JobQueue, room: int) -> list[Choice]:
    """The first job by each order, then in turn the oldest and the smallest ones.

    Only of those that fit, unless a decision names the next.
    """
    most = None if state.names_next else state.free_cores
    firsts = [queue.best(queue.scores(name, state.now_s), most) for name in RIGID_ORDERS]
    flags: dict[int, tuple[bool, ...]] = {}
    found: list[ActiveTask] = []
    for task in firsts:
        if task is not None and task.job.number not in flags:
            flags[task.job.number] = tuple(other is task for other in firsts)
            found.append(task)
    for task in queue.tasks:
        if len(found) >= room:
            break
        if task.job.number not in flags and (most is None or task.job.requested_ranks <= most):
            found.append(task)
    return [Choice(ChoiceKind.START, task, task.shapes[0], flags.get(task.job.number, ())) for task in found[:room]]


def preferred(
    state: EnsembleState, queue: JobQueue, preferences: NDArray[np.float64], room: int
) -> tuple[list[Choice | None], list[float]]:
    """Waiting, then the rigid jobs that a rule prefers, in its order; and the prior of each, 1 for the first job.

    Args:
        preferences: of the jobs in the queue; minus infinity: the rule does not start it now.
    """
    best = preferences.max()
    prior = (1.0 + preferences - best).clip(LEAST_PRIOR) if best > -np.inf else np.full(len(queue), LEAST_PRIOR)
    order = np.argsort(-preferences, kind="stable")
    if not state.names_next:
        order = order[queue.ranks[order] <= state.free_cores]
    order = order[:room]
    tasks = [queue.tasks[i] for i in order]
    found: list[Choice | None] = [WAITING if state.may_wait else None]
    found += [Choice(ChoiceKind.START, task, task.shapes[0], ()) for task in tasks]
    padding = room - len(tasks)
    return found + [None] * padding, [0.0, *prior[order].tolist(), *[0.0] * padding]


def _controls(state: EnsembleState) -> list[Choice]:
    """Of the task that has just reported; where nothing waits, of those that could use what is free."""
    options, reported = state.options, state.reported
    found: list[Choice] = []
    if reported is not None and reported.settled:
        if options.stop:
            found.append(Choice(ChoiceKind.STOP, reported))
        if options.resize:
            now = math.log2(reported.shape.ranks)
            near = sorted(state.wider(reported), key=lambda shape: abs(math.log2(shape.ranks) - now))
            found += [Choice(ChoiceKind.RESIZE, reported, shape) for shape in near[:3]]
    elif options.resize and not state.waiting and state.free_cores > 0:
        late = sorted(state.running.values(), key=lambda task: -task.expected_s)[:3]
        for task in late:
            more = [shape for shape in state.wider(task) if shape.ranks > task.shape.ranks]
            found += [Choice(ChoiceKind.RESIZE, task, shape) for shape in more[:2]]
    return found


def _starts(state: EnsembleState, room: int) -> list[Choice]:
    """Of the first task by each order, the shapes nearest to the widest that is still half efficient."""
    waiting = [task for group in state.startable() for task in _few(group)]
    if not waiting:
        return []
    firsts = [max(waiting, key=lambda task: state.order(name, task)) for name in SHORTLISTS]
    tasks = {task.job.number: task for task in firsts}
    if len(tasks) < len(waiting) and len(tasks) * 4 <= room:  # and one in the middle, as many orders agree
        middle = sorted(waiting, key=lambda task: task.work_left_s)[len(waiting) // 2]
        tasks[middle.job.number] = middle
    each = max(1, room // len(tasks))
    found: list[Choice] = []
    for task in list(tasks.values())[:room]:
        first = tuple(task is other for other in firsts)
        shapes = _nearest(state, task, state.fitting(task), each)
        found += [Choice(ChoiceKind.START, task, shape, first) for shape in shapes]
    return found[:room]


def _few(group: Mapping[int, ActiveTask]) -> list[ActiveTask]:
    """Of many that are alike, those that any order might put first: old and new, large and small ones."""
    tasks = list(group.values())
    if len(tasks) <= MANY:
        return tasks
    part = MANY // 4
    small = heapq.nsmallest(part, tasks, key=attrgetter("work_left_s"))
    large = heapq.nlargest(part, tasks, key=attrgetter("work_left_s"))
    return list(dict.fromkeys([*tasks[:part], *tasks[-part:], *small, *large]))


def _nearest(state: EnsembleState, task: ActiveTask, shapes: Sequence[TaskShape], count: int) -> Sequence[TaskShape]:
    if len(shapes) <= count:
        return shapes
    good = [shape.ranks for shape in shapes if state.efficiency(task, shape) >= 0.5]
    centre = math.log2(max(good, default=shapes[0].ranks))
    # One with a GPU before one without.
    near = sorted(shapes, key=lambda shape: (abs(math.log2(shape.ranks) - centre), not shape.gpu))[:count]
    return sorted(near, key=lambda shape: (shape.gpu, shape.ranks))
