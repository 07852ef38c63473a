"""What ``Executor.status`` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlctl.core.task import Resources, TaskId, TaskState


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that holds resources now.

    Attributes:
        nodes: ranks by number of node.
        since_s: on the executor's clock.
    """

    uid: TaskId
    attempt: int
    state: TaskState
    resources: Resources
    nodes: Mapping[int, int]
    since_s: float


@dataclass(frozen=True, slots=True)
class ExecutorStatus:
    """The state of an executor.

    Attributes:
        seq: number of the last event.
        waiting: tasks that wait for resources.
        held: tasks that wait for their release.
        free_cores: over all nodes.
        free_gpus: likewise.
    """

    time_s: float
    seq: int
    nodes: int
    waiting: int
    held: int
    running: Sequence[RunningTask] = field(default_factory=tuple)
    free_cores: int = 0
    free_gpus: float = 0.0
