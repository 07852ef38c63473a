"""Looks up while tasks run: for a request to stop, for progress, for curves."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rlctl.core.machine import Machine
from rlctl.core.runner import TaskRunner
from rlctl.core.task import Event, Resources, TaskId, TaskSpec, TaskState
from rlctl.system.interrupts import Interrupted
from rlctl.system.watchdog import interruptible

_LOOK_UP_S = 0.25


class StopRequest:
    """Whether somebody has asked to stop (Ctrl-C, or the end of a batch job)."""

    def __init__(self) -> None:
        self.made = False

    def check(self) -> None:
        """Stop here if it was asked for.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self.made:
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Collects SIGINT and SIGTERM instead of letting them strike anywhere.

    An exception out of nowhere between the start of a process and the note of it would lose the process; a further
    Ctrl-C during the shutdown would do the same.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(number, note)  # the watchdog lets a second signal kill where this is not reached
        request.made = True
        if interruptible():  # a rule that never answers would never let the request be seen
            raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class InterruptibleRunner:
    """An executor that waits in short slices and tells what happens in them.

    Attributes:
        busy: cores of each task that runs now.
    """

    def __init__(
        self,
        executor: TaskRunner,
        stop: StopRequest,
        look_up: Callable[[], None],
        told: Callable[[Event], None],
    ) -> None:
        """Stand between an executor and the driver.

        Args:
            look_up: called several times a second; what it raises ends the wait.
            told: of each event.
        """
        self.capacity = executor.capacity
        self.busy: dict[TaskId, int] = {}
        self._executor = executor
        self._stop = stop
        self._look_up = look_up
        self._told = told
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
        """Change what a task asks for."""
        self._executor.update(uid, resources=resources)
        if resources is not None and uid in self._cores:
            self._cores[uid] = resources.cores

    def machine(self) -> Machine:
        """Which nodes are there now."""
        return self._executor.machine()

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Wait for the next events.

        Raises:
            KeyboardInterrupt: a stop was requested.
        """
        end_s = None if timeout_s is None else self.now() + timeout_s
        while True:
            self._stop.check()
            self._look_up()
            slice_s = _LOOK_UP_S if end_s is None else min(_LOOK_UP_S, max(end_s - self.now(), 0.0))
            asked_s = time.monotonic()
            events = self._executor.wait(slice_s, idle=idle)
            # Back before the slice is over means that nothing is queued or running, or that nodes came or went.
            early = time.monotonic() - asked_s < 0.5 * slice_s
            for event in events:
                self._note(event)
            if events or early or (end_s is not None and self.now() >= end_s):
                return events

    @property
    def queued(self) -> int:
        """Number of tasks that wait for cores."""
        return len(self._cores) - len(self.busy)

    def close(self) -> None:
        """Stop everything that still runs."""
        self._executor.close()

    def _note(self, event: Event) -> None:
        self._told(event)
        if event.state is TaskState.RUNNING:
            self.busy[event.uid] = self._cores.get(event.uid, 0)
        elif event.state in (TaskState.PREEMPTED, TaskState.QUEUED):
            self.busy.pop(event.uid, None)
        elif event.state.final:
            self.busy.pop(event.uid, None)
            self._cores.pop(event.uid, None)
