"""The interface of executors that the driver uses."""

from __future__ import annotations

from typing import Any, Protocol

from rlctl.core.machine import Capacity, Machine
from rlctl.core.task import Event, Resources, TaskId, TaskSpec


class TaskRunner(Protocol):
    """What the driver needs of an executor; see ``rlctl.executors.engine.Executor`` for the methods."""

    capacity: Capacity

    def now(self) -> float:
        """Seconds since the campaign began."""

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> Any:
        """Queue a task."""

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task."""

    def update(self, uid: TaskId, *, resources: Resources | None = None) -> None:
        """Change the requested resources of a task."""

    def machine(self) -> Machine:
        """Which nodes are there now."""

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Start what fits, then wait for the next events."""

    def close(self) -> None:
        """Stop all tasks, and release what was allocated."""


class NoRunner(TaskRunner):
    """Runs nothing; for campaigns that are read from a journal, and for those whose tasks run elsewhere."""

    def __init__(self, capacity: Capacity, time_s: float = 0.0) -> None:
        self.capacity = capacity
        self._time_s = time_s

    def now(self) -> float:
        """Always the same time."""
        return self._time_s

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> None:
        """Do nothing."""

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Do nothing."""

    def update(self, uid: TaskId, *, resources: Resources | None = None) -> None:
        """Do nothing."""

    def machine(self) -> Machine:
        """All nodes are there."""
        return Machine(self.capacity.nodes, frozenset(), self.capacity.nodes)

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Nothing happens."""
        return []

    def close(self) -> None:
        """Nothing to stop."""
