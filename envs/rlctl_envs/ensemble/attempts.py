"""Attempts of tasks: their place on the machine, their times, and their charges."""

from __future__ import annotations

from rlctl.core.task import Event
from rlctl_envs.ensemble.active_task import ActiveTask, TaskPhase
from rlctl_envs.ensemble.cost_account import CostAccount
from rlctl_envs.ensemble.job_request import TaskShape
from rlctl_envs.ensemble.state import EnsembleState


class Attempts:
    """Mirrors the executor's placement: what runs has a place in the state's pool and is charged, and nothing else is.

    Args:
        state: whose machine it is.
        account: charges for them.

    Attributes:
        again: tasks that were lost with their node and have no place; the executor runs them again before all others.
    """

    def __init__(self, state: EnsembleState, account: CostAccount) -> None:
        self._state, self._account = state, account
        self.again: set[ActiveTask] = set()

    def start(self, task: ActiveTask, shape: TaskShape) -> bool:
        """A waiting task is to run; False if there is no place."""
        if not self._state.place(task, shape):
            return False
        self._account.unqueued(task)
        self._state.dequeue(task)
        self._state.running[task.job.number] = task
        task.status = TaskPhase.RUNNING
        task.starts += 1
        self._begins_at(task, task.done)
        self._account.started(task)
        return True

    def resize(self, task: ActiveTask, shape: TaskShape) -> bool:
        """A running task is to go on elsewhere; False if there is no place, and it stays."""
        state = self._state
        done, before = max(task.done, state.believed(task)), task.shape
        self._lost(task)
        task.done = done
        state.release(task)
        placed = state.place(task, shape)
        if not placed and not state.place(task, before):
            raise RuntimeError(f"task {task.uid} had a place and has none")
        if placed:
            task.resizing = True
            self._begins_at(task, task.done)
        self._account.started(task)
        return placed

    def runs(self, task: ActiveTask, event: Event) -> None:
        """It runs now; what it does until its end is expected from here on."""
        again = task.waits_again
        if not again:
            self._account.let_go(task)
        shift_s = event.time_s - task.started_s
        task.attempt, task.started_s, task.expected_s = event.attempt, event.time_s, task.expected_s + shift_s
        task.resizing = False
        if again:  # it has found a place, wherever that is
            self._place(task)
        else:
            self._account.started(task)

    def progressed(self, task: ActiveTask, done: float) -> None:
        """It has done so much of its work."""
        if task.waits_again:
            task.done = done
        else:
            self._account.progressed(task, done)

    def displaced(self, task: ActiveTask) -> None:
        """It was lost with its node; the executor runs it again where it fits."""
        if not task.waits_again:
            self._lost(task)
            self._state.release(task)
        self._begins_at(task, task.done if task.job.resizable else 0.0)
        self._place(task)

    def place_again(self) -> None:
        """There may be room for those that have no place."""
        for task in sorted(self.again, key=lambda task: (task.started_s, task.job.number)):
            self._place(task)

    def leave(self, task: ActiveTask) -> None:
        """It does not run any more."""
        if not task.waits_again:
            self._lost(task)
            self._state.release(task)
        task.waits_again = task.resizing = task.stopping = False
        self.again.discard(task)
        del self._state.running[task.job.number]

    def _lost(self, task: ActiveTask) -> None:
        """What it had of the machine it has no longer."""
        self._account.let_go(task)
        task.spent += (self._state.now_s - task.started_s) * task.charge

    def _begins_at(self, task: ActiveTask, done: float) -> None:
        """A new attempt, which has said nothing yet."""
        task.reports.clear()
        task.attempt = 0
        task.begun = task.done = done
        task.started_s = task.expected_s = self._state.now_s
        task.expected_s += self._state.seconds(task, task.shape)

    def _place(self, task: ActiveTask) -> None:
        task.waits_again = not self._state.place(task, task.shape)
        (self.again.add if task.waits_again else self.again.discard)(task)
        if not task.waits_again:
            self._account.started(task)
