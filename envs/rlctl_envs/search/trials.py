"""Trials: the evaluations of a search, those that run and those that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rlctl.core.task import Resources, TaskId
from rlctl.executors.node_share import Allocation
from rlctl_envs.search.objective import Assessment
from rlctl_envs.search.parameters import Floats, Value


class TrialStatus(StrEnum):
    """How a trial stands."""

    RUNNING = "running"  # or queued
    DONE = "done"
    INFEASIBLE = "infeasible"  # the program says that the point cannot be evaluated
    FAILED = "failed"
    STOPPED = "stopped"  # by the policy
    KNOWN = "known"  # done elsewhere, before


@dataclass(slots=True)
class Trial:
    """One evaluation.

    Attributes:
        number: 0, 1, 2 ... within the campaign; names the folder of its files.
        point: in the space of the search.
        key: the same for all trials of this point at this stage.
        values: the parameters there.
        stage: number of the stage.
        resources: what it occupies.
        uid: of its task.
        nodes: its share of the machine, in nodes.
        queued_s: when it was submitted, seconds since the campaign began.
        walltime_s: seconds after which it is stopped; None: as its program says.
        allocation: its place; None: it waits for one.
        started_s: when its program began; None: not yet.
        ended_s: None: not yet.
        results: what the readers found.
        assessment: what they are worth; None: nothing is known.
        progress: what it has reported while it runs: (seconds since the campaign began, value).
        kind: of its failure, as the program's options name it.
        message: one line on its failure.
        known: whether it was made elsewhere, before: it counts for models and goals, not for budgets.
        elsewhere: whether it is made elsewhere, and holds nothing of the machine.
        again: number of the trial that this one repeats, since it gave no result; None: it repeats none.
    """

    number: int
    point: Floats
    key: tuple[int, ...]
    values: Mapping[str, Value]
    stage: int
    resources: Resources
    uid: TaskId
    nodes: float
    queued_s: float
    walltime_s: float | None = None
    allocation: Allocation | None = None
    started_s: float | None = None
    ended_s: float | None = None
    status: TrialStatus = TrialStatus.RUNNING
    results: Mapping[str, Any] = field(default_factory=dict)
    assessment: Assessment | None = None
    progress: list[tuple[float, float]] = field(default_factory=list)
    kind: str = ""
    message: str = ""
    known: bool = False
    elsewhere: bool = False
    again: int | None = None

    @property
    def seconds(self) -> float:
        """How long it ran; 0 unless it has begun and ended."""
        return 0.0 if self.started_s is None or self.ended_s is None else self.ended_s - self.started_s

    @property
    def node_seconds(self) -> float:
        """Its share of the machine times the time that it ran."""
        return self.nodes * self.seconds
