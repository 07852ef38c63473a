"""Waits for tasks in short slices, to react to stop requests and update progress and curves meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlctl.core.machine import Machine
from rlctl.core.runner import TaskRunner
from rlctl.core.task import Event, Resources, TaskId, TaskSpec, TaskState
from rlctl.system.interrupts import Interrupted, requested_by_signals
from rlctl.system.watchdog import interruptible

_SLICE_S = 0.25


class StopFlag:
    """Whether a signal has requested a stop (Ctrl-C, or the end of a batch job)."""

    def __init__(self) -> None:
        self.made = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a stop was requested."""
        if self.made:
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a stop request that the control loop checks.

    An exception between the start of a process and its record would lose the process, and so would a second Ctrl-C
    during the shutdown.
    """
    request = StopFlag()

    def note(number: int) -> None:
        request.made = True
        if interruptible():  # user code that hangs would keep the loop from checking
            raise Interrupted

    with requested_by_signals(note):
        yield request


class InterruptibleRunner:
    """A ``TaskRunner`` that waits in short slices.

    Attributes:
        busy: cores of each running task.
    """

    def __init__(
        self,
        executor: TaskRunner,
        stop: StopFlag,
        between: Callable[[], None],
        on_event: Callable[[Event], None],
    ) -> None:
        """Wrap an executor.

        Args:
            between: called several times a second; exceptions end the wait.
            on_event: receives each event.
        """
        self.capacity = executor.capacity
        self.busy: dict[TaskId, int] = {}
        self._executor = executor
        self._stop = stop
        self._between = between
        self._on_event = on_event
        self._cores: dict[TaskId, int] = {}

    def now(self) -> float:
        """Seconds since the campaign began."""
        return self._executor.now()

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> None:
        """Queue a task."""
        self._executor.submit_task(spec, attempt)
        self._cores[spec.uid] = spec.resources.cores

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task."""
        self._executor.cancel(uid, grace_s)

    def update(self, uid: TaskId, *, resources: Resources | None = None) -> None:
        """Change the requested resources of a task."""
        self._executor.update(uid, resources=resources)
        if resources is not None and uid in self._cores:
            self._cores[uid] = resources.cores

    def machine(self) -> Machine:
        """Nodes that are present."""
        return self._executor.machine()

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Wait for the next events.

        Raises:
            KeyboardInterrupt: a stop was requested.
        """
        end_s = None if timeout_s is None else self.now() + timeout_s
        while True:
            self._stop.check()
            self._between()
            slice_s = _SLICE_S if end_s is None else min(_SLICE_S, max(end_s - self.now(), 0.0))
            asked_s = time.monotonic()
            events = self._executor.wait(slice_s, idle=idle)
            # An early return means that nothing is queued or running, or that nodes came or went.
            early = time.monotonic() - asked_s < 0.5 * slice_s
            for event in events:
                self._note(event)
            if events or early or (end_s is not None and self.now() >= end_s):
                return events

    @property
    def queued(self) -> int:
        """Number of tasks waiting for cores."""
        return len(self._cores) - len(self.busy)

    def close(self) -> None:
        """Stop all tasks."""
        self._executor.close()

    def _note(self, event: Event) -> None:
        self._on_event(event)
        if event.state is TaskState.RUNNING:
            self.busy[event.uid] = self._cores.get(event.uid, 0)
        elif event.state in (TaskState.PREEMPTED, TaskState.QUEUED):
            self.busy.pop(event.uid, None)
        elif event.state.final:
            self.busy.pop(event.uid, None)
            self._cores.pop(event.uid, None)
