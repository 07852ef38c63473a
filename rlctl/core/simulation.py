"""Task models for the simulated executor: results and durations of tasks, and outages of nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rlctl.core.task import Failure, TaskId, TaskSpec


@dataclass(frozen=True, slots=True)
class Launch:
    """A task that is about to run."""

    spec: TaskSpec
    attempt: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """The simulated result of a task.

    Attributes:
        duration_s: how long it occupies its resources, start-up included; infinite: it hangs.
        values: its result, unless it fails.
        progress: what it reports of itself, each with the seconds since its launch, rising.
    """

    duration_s: float
    values: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""
    progress: Sequence[tuple[float, Mapping[str, Any]]] = ()

    def __post_init__(self) -> None:
        if not self.duration_s >= 0.0:  # also NaN, at which no clock arrives
            raise ValueError(f"duration_s: {self.duration_s!r} should be seconds from 0 on, infinite at most")


class TaskModel(Protocol):
    """Computes what tasks do, without running them. Holds what is hidden from the campaign."""

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """One for each launch; deterministic for a seed and a sequence of launches."""


@runtime_checkable
class Checkpointing(Protocol):
    """A task model whose tasks continue where a stopped attempt has left them."""

    def stopped(self, launch: Launch, ran_s: float, asked: bool) -> None:
        """An attempt did not come to its end; ``outcomes`` may be asked for the next.

        Args:
            ran_s: seconds since its launch.
            asked: whether it was asked to stop, and could write a checkpoint; otherwise it was killed or lost.
        """

    def withdrawn(self, uid: TaskId) -> None:
        """The attempt that ``outcomes`` was asked for does not take place: undo it."""


@dataclass(frozen=True, slots=True)
class DurationModel:
    """``(start_up + work) * exp(scatter N(0, 1))``, at times ``straggler_factor`` longer; see ``draw``.

    Attributes:
        start_up_s: seconds before the work begins, by number of ranks.
        scatter: standard deviation of the logarithm of the duration.
        straggler_probability, straggler_factor: the heavy tail.
        failure_probability: chance that an attempt dies, at a uniformly random moment of its life.
    """

    start_up_s: Mapping[int, float]
    scatter: float = 0.0
    straggler_probability: float = 0.0
    straggler_factor: float = 10.0
    failure_probability: float = 0.0

    def draw(self, ranks: int, work_s: float, rng: np.random.Generator) -> tuple[float, bool]:
        """Seconds that an attempt takes, and whether it dies then."""
        seconds = self.start_up_s[ranks] + work_s
        if self.scatter > 0.0:
            seconds *= math.exp(self.scatter * rng.standard_normal())
        if self.straggler_probability > 0.0 and rng.random() < self.straggler_probability:
            seconds *= self.straggler_factor
        if self.failure_probability > 0.0 and rng.random() < self.failure_probability:
            return seconds * rng.random(), True
        return seconds, False


@dataclass(frozen=True, slots=True)
class Outage:
    """A node that is not there for a while; with all nodes from 0 on it is an allocation that waits in a queue.

    Attributes:
        node: number of the node.
        from_s: virtual seconds.
        to_s: likewise; infinite: it does not come back.
        paid: whether it is paid for all the same, as a node is that has failed.
    """

    node: int
    from_s: float
    to_s: float = math.inf
    paid: bool = True
