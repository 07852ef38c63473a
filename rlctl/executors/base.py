"""Executors: what runs tasks and reports their events, on real machines or under a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rlctl.errors import LaunchError
from rlctl.task import Event, TaskId, TaskSpec

if TYPE_CHECKING:
    from rlctl.driver import Recorder


@dataclass(frozen=True, slots=True)
class Capacity:
    """An allocation: ``nodes`` equal nodes of ``cores`` cores and ``gpus`` GPUs each."""

    nodes: int = 1
    cores: int = 2
    gpus: int = 0

    @property
    def total_cores(self) -> int:
        """Cores of all nodes."""
        return self.nodes * self.cores

    def check(self, spec: TaskSpec) -> None:
        """Refuse what can never run.

        Raises:
            LaunchError: the task asks for more than the whole allocation.
        """
        need = spec.resources
        if need.cores > self.total_cores or need.gpus > self.nodes * self.gpus:
            raise LaunchError(
                f"task {spec.uid} needs {need.cores} cores and {need.gpus:g} GPUs; the allocation has "
                f"{self.total_cores} cores and {self.nodes * self.gpus} GPUs: ask for less or allocate more"
            )


class Executor(Protocol):
    """Runs tasks within a capacity.

    Starting is lazy: ``submit_task`` only queues; tasks start inside ``wait``, highest priority first, then in order
    of submission; a task that does not fit yet holds back those behind it. So all decisions due at one instant are
    answered before any of them takes a core.
    """

    capacity: Capacity
    deterministic: bool

    def now(self) -> float:
        """Seconds since the campaign began (virtual or real, a resumed run goes on where it stood)."""

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> None:
        """Queue a task. A uid that is already known is ignored.

        Raises:
            LaunchError: it can never run here.
        """

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task; its CANCELED event comes when it is confirmed dead. Ended and unknown tasks are ignored."""

    def wait(self, timeout_s: float | None = None) -> list[Event]:
        """Start what fits, then wait for the next events and return them in order of time.

        Returns an empty list when the timeout passes, or at once when nothing is queued or running.
        """

    def shutdown(self) -> None:
        """Stop everything that still runs and release what is held; may be called twice."""


class ExecutorFactory(Protocol):
    """What a package registers under the entry point group ``rlctl.executors``: makes executors of one kind.

    It is called as ``Factory(options)``, with the mapping ``executor.options`` of the configuration, and raises
    ``ConfigError`` for options that it does not know or cannot use.
    """

    def check(self, capacity: Capacity) -> None:
        """Refuse what cannot be had, before a run folder is made.

        Raises:
            LaunchError: there is less than ``capacity``.
        """

    def open(self, capacity: Capacity, workdir: Path, journal: Recorder, start_s: float) -> Executor:
        """Take the allocation.

        Args:
            capacity: what to use of it.
            workdir: working directory of the tasks.
            journal: where ``submitted``, ``launching`` and ``started`` are written before they are acted upon.
            start_s: where the clock stands; a resumed campaign goes on where it stood.
        """
