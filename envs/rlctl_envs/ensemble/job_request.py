"""Requests of tasks as their users submit them: what a policy may know before one has run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlctl.core.task import Resources


class GpuUse(StrEnum):
    """What a task can do with GPUs."""

    NO = "no"
    GAIN = "gain"
    NEED = "need"


@dataclass(frozen=True, slots=True)
class TaskShape:
    """What a task is started on; a rank is one core, and one GPU where ``gpu``."""

    ranks: int
    gpu: bool = False


ONE = TaskShape(1)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A task as it is submitted.

    Attributes:
        kind: tasks of a kind scale alike.
        estimate_s: its work, seconds on one rank, as its user believes.
        requested_ranks: what it was submitted for.
        gain: times that a rank with a GPU is faster, as its user believes.
        memory_mb: over all ranks; 0: not limited.
        resizable: whether it writes checkpoints and can go on with other ranks.
        after: tasks that must have ended before it starts.
        parent: the task whose result spawned it; None: there is none.
        arrives: when it arrives: at the beginning (0), or after so many seconds (``offered`` is 0), or when the machine
            could have done so much work (``offered``, seconds of one rank).
        due: its deadline, as a multiple of its estimated time on ``requested_ranks``; 0: none.
        submit_s: when it was submitted on the clock of the log that it is of; 0 elsewhere.
    """

    number: int
    kind: int
    estimate_s: float
    requested_ranks: int = 1
    gpu: GpuUse = GpuUse.NO
    gain: float = 1.0
    memory_mb: float = 0.0
    resizable: bool = False
    priority: int = 0
    after: tuple[int, ...] = ()
    parent: int | None = None
    arrives: float = 0.0
    offered: float = 0.0
    due: float = 0.0
    submit_s: float = 0.0

    def need(self, shape: TaskShape) -> Resources:
        """Resources that it occupies on a shape."""
        memory = None if self.memory_mb <= 0.0 else max(1, round(self.memory_mb / shape.ranks))
        return Resources(ranks=shape.ranks, gpus_per_rank=float(shape.gpu), memory_per_rank_mb=memory)
