"""Life of the tasks of an ensemble: they arrive, wait for others and for room, run, report, end, and are repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlctl.core.task import Event, TaskId, TaskState
from rlctl_envs.ensemble.active_task import ActiveTask, ProgressReport, TaskPhase
from rlctl_envs.ensemble.cost_account import CostAccount, greedy_slowdowns
from rlctl_envs.ensemble.job_request import GpuUse, JobRequest, TaskShape
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.program.hidden_parameters import WORTH
from rlctl_envs.ensemble.scaling_estimate import ScalingEstimate
from rlctl_envs.ensemble.state import EnsembleState
from rlctl_envs.ensemble.workload_options import Range

SOON = 1e-6
"""What is due within this share of the time that has passed is due now: clocks round."""


class TaskLifecycle:
    """Moves tasks from state to state as time passes and events come.

    It mirrors the executor's placement: what runs has a place in the state's pool and is charged, and nothing else is.

    Args:
        jobs: every task that may ever arrive, by number.
        state: of the ensemble, which it changes.
        runs_s: what each really takes, where slowdowns are over that; None: they are over the estimates.

    Attributes:
        account: adds up what tasks cost.
        again: tasks that were lost with their node and have no place; the executor runs them again before all others.
        uids: tasks by the name of their last attempt.
        changed: whether anything has happened that may call for a decision.
        failures: of attempts so far.
    """

    def __init__(
        self,
        options: EnsembleOptions,
        jobs: Sequence[JobRequest],
        state: EnsembleState,
        runs_s: Sequence[float] | None = None,
    ) -> None:
        self._options, self._jobs, self._state = options, jobs, state
        self.uids: dict[TaskId, ActiveTask] = {}
        self.changed = True
        self.failures = 0
        w, capacity = options.workload, state.capacity
        power = float(capacity.total_cores)
        if w.gpus.need + w.gpus.gain > 0.0:
            power += capacity.total_gpus * math.sqrt(w.gpus.gains.low * w.gpus.gains.high)
        for job in jobs:
            if job.kind not in state.scalings:
                gain = job.gain if job.gpu is not GpuUse.NO else 1.0
                rigid = state.queue is not None
                serial, kappa = (Range(1.0, 1.0), Range(0.0, 0.0)) if rigid else (w.serial, w.kappa)
                state.scalings[job.kind] = ScalingEstimate(serial, kappa, gain)
        # Estimated time of each job on the ranks that it was submitted for, by what is believed before any has run: the
        # cost of waiting must not depend on what a policy measures.
        self._references_s = [
            job.estimate_s
            if state.queue is not None
            else state.scalings[job.kind].seconds(job.estimate_s, job.requested_ranks, job.gpu is GpuUse.NEED)
            for job in jobs
        ]
        bounds_s = [max(seconds, options.objective.bound_s) for seconds in runs_s or self._references_s]
        self._shapes = [state.shapes(job) for job in jobs]  # what each can ever be started on
        tasks = [ActiveTask(job, 0.0, 0.0, shapes) for job, shapes in zip(jobs, self._shapes, strict=True)]
        areas, gpu_s = [state.least_area(task) for task in tasks], [state.gpu_seconds(task) for task in tasks]
        rigid = state.queue is not None and options.objective.slowdown > 0.0
        slowdowns = greedy_slowdowns(jobs, bounds_s, capacity.total_cores) if rigid else 2.0 * len(jobs)
        self.account = CostAccount(options.objective, state, areas, gpu_s, bounds_s, slowdowns)
        self.again: set[ActiveTask] = set()
        arrivals = [(job.arrives + job.offered / power, job.number) for job in jobs if job.parent is None]
        self.coming = sorted(arrivals, reverse=True)  # the next one last

    def arrivals(self) -> None:
        """Tasks whose time has come arrive."""
        while self.due:
            self.arrive_next()

    @property
    def due(self) -> bool:
        """Whether the time of the next task has come; that of a rigid job has to the digit."""
        soon = 1e-9 if self._state.queue is None else 0.0
        factor = 1.0 + (SOON if self._state.queue is None else 1e-15)
        return bool(self.coming) and self.coming[-1][0] <= self._state.now_s * factor + soon

    def arrive_next(self) -> None:
        """The next task arrives."""
        arrives_s, number = self.coming.pop()
        self._arrive(self._jobs[number], None if self._state.queue is None else arrives_s)

    def _arrive(self, job: JobRequest, at_s: float | None = None) -> None:
        state = self._state
        at_s = state.now_s if at_s is None else at_s
        reference_s = self._references_s[job.number]
        due_s = at_s + job.due * reference_s if job.due > 0.0 else math.inf
        task = ActiveTask(job, at_s, reference_s, self._shapes[job.number], due_s, reference_s)
        state.arrive(task)
        self.account.arrived(task)
        before = [state.tasks[n] for n in job.after if n in state.tasks]
        if not task.shapes or any(other.status in (TaskPhase.FAILED, TaskPhase.STOPPED) for other in before):
            self._finish(task, TaskPhase.FAILED)
            return
        task.blockers = {other.job.number for other in before if not other.final}
        self._lengthen(task)
        if task.blockers:
            state.blocked[job.number] = task
        else:
            self._enqueue(task)

    def _lengthen(self, task: ActiveTask) -> None:
        """Lengthen the paths of the tasks that it waits for to its own path and their own time, at least."""
        changed = [task]
        while changed:
            last = changed.pop()
            for other in (self._state.tasks[n] for n in last.job.after if n in self._state.tasks):
                if other.path_s < other.reference_s + last.path_s:
                    other.path_s = other.reference_s + last.path_s
                    changed.append(other)

    def _enqueue(self, task: ActiveTask) -> None:
        task.status, task.uid = TaskPhase.WAITING, None
        self._state.enqueue(task)
        self.account.queued(task)
        self.happened()

    def happened(self) -> None:
        """Note that something has happened, other than that a task has reported."""
        self.changed, self._state.reported = True, None

    def progressed(self, task: ActiveTask, event: Event) -> None:
        """Take the report of a running task."""
        assert event.progress is not None
        fraction, value = event.progress.get("fraction"), event.progress.get("value")
        if event.attempt != task.attempt or not isinstance(fraction, int | float) or not 0.0 <= fraction <= 1.0:
            return
        good = isinstance(value, int | float) and math.isfinite(value)
        task.reports.append(
            ProgressReport(event.time_s, float(fraction), float(value) if good and value is not None else None)
        )
        done = max(task.done, float(fraction)) if task.job.resizable else float(fraction)
        if task.waits_again:
            task.done = done
        else:
            self.account.progressed(task, done)
        if self._options.stop or self._options.resize:
            self._state.reported, self.changed = task, True

    def ended(self, task: ActiveTask, event: Event) -> None:
        """Take the end of an attempt that no other follows by itself."""
        result = event.result
        assert result is not None
        asked = task.stopping
        self._leave(task)
        del self.uids[event.uid]
        self.happened()
        if result.state is TaskState.CANCELED:
            self._stopped(task, asked)
        elif result.state is TaskState.DONE and (read := self._read(result.values)) is not None:
            worth, children = read
            if event.attempt == 1 and (task.starts == 1 or not task.job.resizable):
                self._state.learn(task, result.ended_s - result.started_s)
            self._finish(task, TaskPhase.DONE, worth)
            for number in children:
                self._arrive(self._jobs[number])
        else:
            self.failures += 1
            task.failures += 1
            task.done = task.done if task.job.resizable else 0.0
            if task.failures > self._options.retries:
                self._finish(task, TaskPhase.FAILED)
            else:
                self._enqueue(task)
        self.place_again()

    def start(self, task: ActiveTask, shape: TaskShape) -> bool:
        """Start a waiting task; False if there is no place."""
        if not self._state.place(task, shape):
            return False
        self.account.unqueued(task)
        self._state.dequeue(task)
        self._state.running[task.job.number] = task
        task.status = TaskPhase.RUNNING
        task.starts += 1
        self._begins_at(task, task.done)
        self.account.count(task, 1)
        return True

    def resize(self, task: ActiveTask, shape: TaskShape) -> bool:
        """Restart a running task on another shape; False if there is no place, and it stays."""
        state = self._state
        done, before = max(task.done, state.believed(task)), task.shape
        self._lost(task)
        task.done = done
        placed = state.place(task, shape)
        if not placed and not state.place(task, before):
            raise RuntimeError(f"task {task.uid} had a place and has none")
        if placed:
            task.resizing = True
            self._begins_at(task, task.done)
        self.account.count(task, 1)
        return placed

    def runs(self, task: ActiveTask, event: Event) -> None:
        """The executor has started an attempt; its expected end moves accordingly."""
        again = task.waits_again
        if not again:
            self.account.count(task, -1)
        shift_s = event.time_s - task.started_s
        task.attempt, task.started_s, task.expected_s = event.attempt, event.time_s, task.expected_s + shift_s
        task.resizing = False
        if again:  # it has found a place, wherever that is
            self._place(task)
        else:
            self.account.count(task, 1)

    def displaced(self, task: ActiveTask) -> None:
        """The task was lost with its node; the executor runs it again where it fits."""
        if not task.waits_again:
            self._lost(task)
        self._begins_at(task, task.done if task.job.resizable else 0.0)
        self._place(task)

    def place_again(self) -> None:
        """Place tasks that lost their node, as far as there is room."""
        for task in sorted(self.again, key=lambda task: (task.started_s, task.job.number)):
            self._place(task)

    def _leave(self, task: ActiveTask) -> None:
        """Note that a task does not run any more."""
        if not task.waits_again:
            self._lost(task)
        task.waits_again = task.resizing = task.stopping = False
        self.again.discard(task)
        del self._state.running[task.job.number]

    def _lost(self, task: ActiveTask) -> None:
        """Release what a task had of the machine, and charge it."""
        self.account.count(task, -1)
        task.spent += (self._state.now_s - task.started_s) * task.charge
        self._state.release(task)

    def _begins_at(self, task: ActiveTask, done: float) -> None:
        """Begin a new attempt, without reports."""
        task.reports.clear()
        task.attempt = 0
        task.begun = task.done = done
        task.started_s = task.expected_s = self._state.now_s
        task.expected_s += self._state.seconds(task, task.shape)

    def _place(self, task: ActiveTask) -> None:
        task.waits_again = not self._state.place(task, task.shape)
        (self.again.add if task.waits_again else self.again.discard)(task)
        if not task.waits_again:
            self.account.count(task, 1)

    def _stopped(self, task: ActiveTask, asked: bool) -> None:
        """Where all tasks have to end, one that the policy has stopped waits again; otherwise it is over."""
        objective = self._options.objective
        if asked and objective.goal is None and objective.window_s is None:
            task.done = task.done if task.job.resizable else 0.0
            self._enqueue(task)
        else:
            self._finish(task, TaskPhase.STOPPED)

    def _read(self, values: Mapping[str, Any]) -> tuple[bool, list[int]] | None:
        """Whether a result is worth having, and the tasks that it spawns; None for garbage."""
        try:
            quality = float(values.get("quality", 1.0))
            children = [int(number) for number in values.get("children", ())]
        except (TypeError, ValueError):
            return None
        new = all(0 <= n < len(self._jobs) and n not in self._state.tasks for n in children)
        return (quality >= WORTH, children) if new else None

    def _finish(self, task: ActiveTask, status: TaskPhase, worth: bool = True) -> None:
        state = self._state
        task.status, task.ended_s, task.uid = status, state.now_s, None
        task.worth = status is TaskPhase.DONE and worth
        self.account.ended(task, state.now_s)
        state.ended.append(task)
        state.counts[status] += 1
        for other in [t for t in state.blocked.values() if task.job.number in t.blockers]:
            other.blockers.discard(task.job.number)
            if status is not TaskPhase.DONE:
                del state.blocked[other.job.number]
                self._finish(other, TaskPhase.FAILED)
            elif not other.blockers:
                del state.blocked[other.job.number]
                self._enqueue(other)
