"""Drives the backends: starts what the scheduler has placed, handles what they report, and resolves futures.

Everything here happens with one lock held, except ``Backend.poll`` in the threads of the backends, and callbacks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from rlctl.core.errors import LaunchError, RlctlError, described
from rlctl.core.task import Event, Failure, TaskResult, TaskState
from rlctl.executors.backend import (
    AllocationExpires,
    Attempt,
    AttemptOutcome,
    Backend,
    BackendEvent,
    Exited,
    NodesChanged,
    ProgressReported,
    Started,
)
from rlctl.executors.callback_lock import CallbackLock
from rlctl.executors.driven_pool import DrivenPool, open_pools
from rlctl.executors.factory import PoolPlan
from rlctl.executors.futures import ExecutorBroken, fail
from rlctl.executors.recovery import History
from rlctl.executors.scheduler import Scheduler
from rlctl.executors.task_log import TaskLog
from rlctl.executors.task_state import Task, event_after, next_state
from rlctl.system import crash_report

KEPT = 65_536
"""Events that ``Executor.events`` can still return."""

_SILENT = {TaskState.NEW, TaskState.QUEUED, TaskState.HELD, TaskState.SCHEDULED, TaskState.LAUNCHING}
_RETURNED = frozenset(TaskState) - _SILENT
"""States that ``Executor.wait`` reports."""


class Dispatcher:
    """See the module.

    Attributes:
        pending: events that no ``wait`` has returned yet.
        eager: whether tasks start as soon as they fit; otherwise only while ``gate`` is open.
        clock: of a backend with a virtual one; None: time is real.
        attempts: tasks whose present attempt a backend has, by key.
        expires: whether the batch job of this process is about to end.
        broken: what has ended the executor; None: nothing has.
    """

    def __init__(
        self, plans: Sequence[PoolPlan], *, eager: bool, task_log: TaskLog | None, history: History, start_s: float
    ) -> None:
        """Open the backends; see ``open_pools``."""
        self.lock = CallbackLock()
        self.eager = self.gate = eager
        self.log: deque[Event] = deque(maxlen=KEPT)
        self.pending: deque[Event] = deque(maxlen=KEPT if eager else None)
        self.task_log, self.history = task_log, history
        self.closing = self.expires = False
        self.broken: RlctlError | None = None
        self.clock = plans[0].backend.clock
        self.now: Callable[[], float] = self.clock or self._real_time
        self.attempts: dict[str, Task] = {}
        self._unacknowledged: list[tuple[Backend, str]] = []
        self.pools = open_pools(plans, history.incarnation)
        self._origin = time.monotonic() - start_s - max(pool.unattended_s for pool in self.pools)
        self._of = {pool.nodes: pool for pool in self.pools}
        self._announces = any(pool.announces for pool in self.pools)
        backfill = [pool.nodes for pool, plan in zip(self.pools, plans, strict=True) if plan.backfill]
        self.scheduler = Scheduler(list(self._of), self._report, backfill)
        self._seen = self._version  # of the nodes, when events were taken last
        self.keep_places()

    def _real_time(self) -> float:
        return time.monotonic() - self._origin

    def keep_places(self) -> None:
        """Keep the places of attempts that still run until their tasks are submitted again."""
        if not self.eager:  # nothing starts before everything has been asked for
            for pool in self.pools:
                pool.keep_places(self.history)

    # Starting.

    def pump(self) -> None:
        """Give places to what fits, and start it."""
        if self.gate and self.broken is None:
            while placed := self.scheduler.schedule(now_s := self.now()):  # again, where a start has failed at once
                for task in placed:
                    self._start(task, now_s)
        if self.closing:
            self.wake()

    def start_what_fits(self) -> None:
        """Start what fits, though tasks start inside ``wait`` only."""
        self.gate = True
        self.pump()
        self.gate = self.eager

    def _start(self, task: Task, now_s: float) -> None:
        log = self.task_log
        if task.trouble is not None:
            self.ended(task, AttemptOutcome(failure=Failure.LAUNCH, message=task.trouble))
        elif log is None or task.call is not None:  # such a call cannot be asked for again
            self._launch(task)
        else:
            assert task.pool is not None
            where = self._of[task.pool].describe(task.allocation)
            if task.spec.function is not None:  # dies with its controller: there is nothing to wait for
                log.launching(task.uid, task.attempt, now_s, where)
                self._launch(task)
            else:
                then = partial(self._written, partial(self._launch_recorded, task))
                log.launching(task.uid, task.attempt, now_s, where, then)

    def _launch_recorded(self, task: Task) -> None:
        self._launch(task)
        self.pump()

    def _launch(self, task: Task) -> None:
        assert task.pool is not None
        try:
            if not task.begin():
                self.ended(task, AttemptOutcome(stopped=True))
                return
            self.scheduler.enter(task, TaskState.LAUNCHING, self.now())
            key = task.key
            self.attempts[key] = task
            if self._of[task.pool].backend.start(self._attempt(task, key)):
                self._started(task)
        except BaseException as error:
            self.attempts.pop(task.key, None)
            message = str(error) if isinstance(error, RlctlError | OSError) else described(error)
            cause = error.__cause__ if isinstance(error, LaunchError) and error.__cause__ is not None else error
            self.ended(task, AttemptOutcome(failure=Failure.LAUNCH, message=message, error=cause))
            if not isinstance(error, Exception):  # an interrupt, while arguments are pickled in the user's thread
                raise

    def _attempt(self, task: Task, key: str) -> Attempt:
        return Attempt(key, task.uid, task.attempt, task.spec, task.need, task.allocation, task.call)

    # Stopping.

    def stop(self, task: Task, grace_s: float) -> None:
        """Stop a task that holds resources."""
        if task.state is TaskState.SCHEDULED or task.pool is None:  # ``_launch`` finds out
            return
        key, pool = task.key, self._of[task.pool]
        if not pool.closed and pool.backend.stop(key, grace_s):
            self.attempts.pop(key, None)
            self.ended(task, AttemptOutcome(stopped=True))

    def suspend(self, task: Task) -> None:
        """Suspend a running task."""
        if (backend := self.backend_of(task)) is not None:
            backend.suspend(task.key)
        self.scheduler.enter(task, TaskState.SUSPENDED, self.now())

    def backend_of(self, task: Task) -> Backend | None:
        """The backend of a task that has a place; None: it is closed."""
        assert task.pool is not None
        pool = self._of[task.pool]
        return None if pool.closed else pool.backend

    # What backends report.

    def handle(self, pool: DrivenPool, events: Iterable[BackendEvent]) -> None:
        """Handle what a backend has reported."""
        for event in events:
            if isinstance(event, Exited):
                task = self.attempts.pop(event.key, None)
                if task is not None and event.outcome is not None:
                    self.ended(task, event.outcome)
                else:
                    pool.exited(event.key)
                    self.scheduler.touch()
            elif isinstance(event, NodesChanged):
                pool.change(event)
                self.scheduler.touch()
                self.lock.news.notify_all()  # ``wait`` may start something now
            elif isinstance(event, AllocationExpires):
                self.expires = True
                self.lock.news.notify_all()
            elif (task := self.attempts.get(event.key)) is not None:
                if isinstance(event, Started):
                    self._started(task, event)
                elif isinstance(event, ProgressReported) and task.state is TaskState.RUNNING:
                    self._progress(task, event)

    def _started(self, task: Task, started: Started | None = None) -> None:
        if task.state is not TaskState.LAUNCHING:
            return
        self.scheduler.enter(task, TaskState.RUNNING, self.now())
        if self.task_log is not None and started is not None:
            self.task_log.started(self.log[-1], started.details)
        if task.hold and task.stop is None:
            self.suspend(task)

    def _progress(self, task: Task, progress: ProgressReported) -> None:
        """Report progress; what has been reported and not returned before is out of date."""
        before = next((e for e in self.pending if e.uid == task.uid and e.progress is not None), None)
        if before is not None and self.clock is None:
            self.pending.remove(before)
        event = self.scheduler.progress(task, self.now(), progress.data)
        self.log.append(event)
        self.pending.append(event)
        self.lock.news.notify_all()

    def ended(self, task: Task, outcome: AttemptOutcome) -> None:
        """All processes of an attempt have exited: record it if need be, then report it."""
        now_s, log = self.now(), self.task_log
        if log is None or not log.at_once:
            if task.pool is not None and task.spec.function is None and self.clock is None:
                self._unacknowledged.append((self._of[task.pool].backend, task.key))
            self.scheduler.ended(task, outcome, now_s)
            if log is None and self._unacknowledged:
                self.acknowledge()
            return
        self.scheduler.free(task)
        then = partial(self._written, partial(self._end_recorded, task, outcome, next_state(task, outcome)))
        log.event(event_after(task, outcome, now_s), then=then)

    def _end_recorded(self, task: Task, outcome: AttemptOutcome, state: TaskState) -> None:
        if next_state(task, outcome) is not state:  # canceled meanwhile
            self.ended(task, outcome)
            return
        if task.pool is not None and task.spec.function is None and (backend := self.backend_of(task)) is not None:
            backend.acknowledge(task.key)
        self.scheduler.ended(task, outcome, self.now())
        self.pump()

    @property
    def _version(self) -> int:
        """Changes when nodes come or go."""
        pools = self.scheduler.pools
        return pools[0].version if len(pools) == 1 else sum(pool.version for pool in pools)

    def has_news(self, idle: bool) -> bool:
        """Whether there is something to report, or nothing to wait for; see ``Executor.wait``."""
        if self.pending:
            return True
        return self._version != self._seen if idle else len(self.scheduler.tasks) == self.scheduler.held

    def take(self) -> tuple[list[Event], list[tuple[Backend, str]]]:
        """The pending events, and what may be acknowledged when they are recorded."""
        self._seen = self._version
        taken = list(self.pending), self._unacknowledged
        self.pending.clear()
        self._unacknowledged = []
        return taken

    def acknowledge(self) -> None:
        """Backends may forget what has ended."""
        for backend, key in self._unacknowledged:
            backend.acknowledge(key)
        self._unacknowledged.clear()

    def _report(self, task: Task, event: Event, outcome: AttemptOutcome | None) -> None:
        """The scheduler reports that a task has another state."""
        self.log.append(event)
        state, future = event.state, task.future
        queued, final = state is TaskState.QUEUED, event.result is not None
        returned = task.call is None and (state in _RETURNED or (queued and event.attempt > 1))
        if returned:
            self.pending.append(event)
        if self._announces and (queued or (final and task.pool is None)):
            self.announce(task, queued)
        if future is not None:
            future.state, future.attempt = state, event.attempt
            if event.result is not None:
                self._resolve(task, event.result, outcome)
        if self.clock is not None:
            if self.eager:  # room for others, or something to do for the clock
                self.lock.news.notify_all()
        elif returned or (final and not self.eager):
            self.lock.news.notify_all()

    def announce(self, task: Task, waits: bool) -> None:
        """Inform backends that want to know of an attempt that waits, or waits no more."""
        for pool in [self._of[nodes] for nodes in task.pools if self._of[nodes].announces]:
            if waits:
                pool.backend.announce(self._attempt(task, task.key))
            else:
                pool.backend.withdraw(task.key)

    def _resolve(self, task: Task, result: TaskResult, outcome: AttemptOutcome | None) -> None:
        future, task.future = task.future, None
        if outcome is not None and task.call is not None:
            value, error = outcome.value, outcome.error
        else:
            value, error = result.values, None
        self.lock.after(partial(future.resolve, result, value, error))

    # Errors, and the end.

    def guarded(self, work: Callable[[], object]) -> None:
        """Call what serves all tasks; an unexpected error ends the executor, so that nothing hangs."""
        try:
            work()
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # an interrupt; it is the caller's
            self._break(ExecutorBroken(str(error) if isinstance(error, RlctlError) else crash_report.report(error)))

    def _break(self, error: RlctlError) -> None:
        """End the executor: fail all futures, and let the threads close the backends."""
        if self.broken is not None:
            return
        self.broken = error
        with self.lock:
            for task in list(self.scheduler.tasks.values()):
                future = task.future
                if future is not None and not future.done():
                    self.lock.after(partial(fail, future, type(error)(str(error))))
                    task.future = None
            self.wake()

    def wake(self) -> None:
        """End the sleep of the threads."""
        self.lock.news.notify_all()
        for pool in self.pools:
            if pool.thread is not threading.current_thread():
                pool.backend.wake()

    def _written(self, then: Callable[[], object], error: RlctlError | None) -> None:
        """Called by the journal's thread when a record is on disk, or cannot be written."""

        def go_on() -> None:
            with self.lock:
                if error is not None:
                    self._break(error)
                else:
                    then()

        self.guarded(go_on)
