"""A task of the ensemble as far as the campaign knows it, and the orders in which rules start waiting ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rlctl.core.task import TaskId
from rlctl.executors.node_share import Allocation
from rlctl_envs.ensemble.job_request import ONE, JobRequest, TaskShape
from rlctl_envs.ensemble.orders import SCORES, Score


class TaskPhase(StrEnum):
    """Life of a task; the last three are final, and a task has exactly one of them in the end."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """A report of a running task.

    Attributes:
        time_s: when it came.
        fraction: of its work that is done.
        value: of what it will be worth; None: it does not say.
    """

    time_s: float
    fraction: float
    value: float | None


@dataclass(slots=True, eq=False)
class ActiveTask:
    """A task that has arrived.

    Attributes:
        arrived_s: when it arrived.
        reference_s: its estimated time on the ranks that it was submitted for.
        shapes: what it can be started on, few ranks first.
        deadline_s: when it is due; infinite: never.
        path_s: estimated time until the last of those that wait for it can end.
        blockers: tasks that must end before it starts.
        shape, started_s, expected_s: of the attempt that runs: on what, since when, and its expected end.
        attempt: its number, as the executor counts; 0: it does not run yet.
        begun: share of the work that was done when this attempt began, as far as is known.
        done: share of the work that is done, likewise.
        waits_again: a running attempt was lost with its node, and the executor will run it again where it fits.
        resizing: it is being stopped to go on with other ranks.
        stopping: it is being stopped, and will not run on.
        charge: its share of the machine while it runs, in nodes.
        area: node-seconds that its remaining work was thought to need when it was queued last.
        spent: node-seconds that it has taken, but for the attempt that runs.
        worth: it is done, and worth having.
    """

    job: JobRequest
    arrived_s: float
    reference_s: float
    shapes: tuple[TaskShape, ...]
    deadline_s: float = math.inf
    path_s: float = 0.0
    blockers: set[int] = field(default_factory=set)
    status: TaskPhase = TaskPhase.WAITING
    uid: TaskId | None = None
    shape: TaskShape = ONE
    placement: Allocation = ()
    started_s: float = 0.0
    expected_s: float = 0.0
    begun: float = 0.0
    done: float = 0.0
    starts: int = 0
    attempt: int = 0
    failures: int = 0
    waits_again: bool = False
    resizing: bool = False
    stopping: bool = False
    charge: float = 0.0
    area: float = 0.0
    spent: float = 0.0
    worth: bool = False
    ended_s: float = 0.0
    reports: list[ProgressReport] = field(default_factory=list)

    @property
    def work_left_s(self) -> float:
        """Estimated work that is left, seconds on one rank."""
        return self.job.estimate_s * (1.0 - self.done)

    @property
    def settled(self) -> bool:
        """Whether it runs, and is neither being stopped or resized nor waiting for a node."""
        return self.status is TaskPhase.RUNNING and not (self.waits_again or self.resizing or self.stopping)

    @property
    def final(self) -> bool:
        """Whether its phase is final."""
        return self.status not in (TaskPhase.WAITING, TaskPhase.RUNNING)


# Scores by which rules order waiting tasks: the highest starts first. They read what users know, never the truth.


def fifo(task: ActiveTask, now_s: float) -> float:
    """First come, first served."""
    return -task.arrived_s - 1e-9 * task.job.number


def sjf(task: ActiveTask, now_s: float) -> float:
    """Shortest job first."""
    return -task.work_left_s


def lpt(task: ActiveTask, now_s: float) -> float:
    """Longest processing time first (Graham 1969)."""
    return task.work_left_s


def _submitted(score: Score) -> Callable[[ActiveTask, float], float]:
    """A score of what users submit."""

    def of(task: ActiveTask, now_s: float) -> float:
        job = task.job
        run_s, submit_s = max(task.reference_s, 1e-9), job.submit_s or task.arrived_s
        return float(score(now_s - task.arrived_s, run_s, job.requested_ranks, submit_s))

    return of


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
    "due": due,
    "critical": critical,
    **{name: _submitted(score) for name, score in SCORES.items() if name not in ("fifo", "sjf")},
}
"""The scores by name."""
