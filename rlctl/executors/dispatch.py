"""Drives the backends: starts what the scheduler has placed, handles what they report, and resolves futures.

Everything here happens with one lock held, except ``Backend.poll`` in the threads of the backends, and callbacks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from rlctl.core.errors import LaunchError, RlctlError, described
from rlctl.core.task import Event, Failure, TaskResult, TaskSpec, TaskState
from rlctl.executors.backend import (
    AllocationExpires,
    Attempt,
    AttemptOutcome,
    Backend,
    BackendEvent,
    Exited,
    NodesChanged,
    Progress,
    Started,
)
from rlctl.executors.callback_lock import CallbackLock, NewsCondition
from rlctl.executors.driven_pool import DrivenPool
from rlctl.executors.factory import PoolPlan
from rlctl.executors.futures import ExecutorBroken, TaskFuture
from rlctl.executors.naming import attempt_key
from rlctl.executors.pool import NodePool
from rlctl.executors.recovery import History
from rlctl.executors.scheduler import Scheduler, event_after
from rlctl.executors.task_log import TaskLog
from rlctl.executors.task_state import NODE_FAILURES, Task, next_state
from rlctl.system import crash_report

KEPT = 65_536
"""Events that ``Executor.events`` can still return."""

_RETURNED = frozenset(
    {
        TaskState.RUNNING,
        TaskState.SUSPENDED,
        TaskState.PREEMPTED,
        TaskState.DONE,
        TaskState.FAILED,
        TaskState.CANCELED,
    }
)
"""States that ``Executor.wait`` reports."""


class Dispatcher:
    """See the module.

    Attributes:
        lock, news: news is notified of whatever ``Executor.wait`` waits for.
        log: the last events.
        pending: events that no ``wait`` has returned yet.
        eager: whether tasks start as soon as they fit; otherwise only while ``gate`` is open.
        clock: of a backend with a virtual one; None: time is real.
        now: seconds since the campaign began.
        closing: whether no more tasks are taken.
        broken: why nothing can be recorded, or started, any more.
        expires: whether the batch job of this process is about to end.
    """

    def __init__(
        self, plans: Sequence[PoolPlan], *, eager: bool, task_log: TaskLog | None, history: History, start_s: float
    ) -> None:
        """Open the backends.

        Raises:
            LaunchError: one of them cannot be had; none stays open.
        """
        self.lock = CallbackLock()
        self.news = NewsCondition(self.lock)
        self.eager = self.gate = eager
        self.log: deque[Event] = deque(maxlen=KEPT)
        self.pending: deque[Event] = deque(maxlen=KEPT if eager else None)
        self.task_log, self.history = task_log, history
        self.closing = self.expires = False
        self.broken: RlctlError | None = None
        self.clock = plans[0].backend.clock
        self.now: Callable[[], float] = self.clock or self._real_time
        self.pools: list[DrivenPool] = []
        self._origin = time.monotonic() - start_s
        self._attempts: dict[str, Task] = {}
        self._unacknowledged: list[tuple[Backend, str]] = []
        first_node, skipped_s = 0, 0.0
        try:
            for plan in plans:
                pool = DrivenPool(plan, first_node, several=len(plans) > 1)
                skipped_s = max(skipped_s, pool.open(history.incarnation))
                self.pools.append(pool)
                first_node += pool.planned
        except BaseException:
            for pool in self.pools:
                pool.backend.close(keep_outcomes=True)
            raise
        self._origin -= skipped_s  # programs went on for so long without a controller
        self._of = {pool.nodes: pool for pool in self.pools}
        self._announces = any(pool.announces for pool in self.pools)
        backfill = [pool.nodes for pool, plan in zip(self.pools, plans, strict=True) if plan.backfill]
        self.scheduler = Scheduler(list(self._of), self._report, backfill)
        self.keep_places()

    def _real_time(self) -> float:
        return time.monotonic() - self._origin

    def serve(self) -> None:
        """Start the threads of the backends; with a virtual clock there is one only if tasks start by themselves."""
        for number, pool in enumerate(self.pools):
            if self.clock is None or self.eager:
                work = partial(self._serve, pool)
                pool.thread = threading.Thread(target=work, name=f"rlctl-executor-{number}", daemon=True)
                pool.thread.start()

    # Which pools.

    def possible_pools(self, spec: TaskSpec) -> tuple[NodePool, ...]:
        """The pools in which a task can run, in their order.

        Raises:
            LaunchError: none, or not the one that it names.
        """
        if len(self.pools) == 1 and not self.pools[0].name:
            self.pools[0].check(spec)
            return self.scheduler.pools
        if spec.pool is not None:
            named = next((pool for pool in self.pools if pool.name == spec.pool), None)
            if named is None:
                known = ", ".join(pool.name for pool in self.pools)
                raise LaunchError(f"task {spec.uid} names the pool {spec.pool!r}, which is not there; known: {known}")
            named.check(spec)
            return (named.nodes,)
        possible, reasons = [], []
        for pool in self.pools:
            try:
                pool.check(spec)
                possible.append(pool.nodes)
            except LaunchError as error:
                reasons.append(f"{pool.name}: {str(error).removeprefix(f'task {spec.uid}').removeprefix(':').strip()}")
        if not possible:
            nodes = sum(pool.nodes.nodes for pool in self.pools)
            NodePool(replace(self.pools[0].backend.capacity, nodes=nodes)).check(spec)
            raise LaunchError(f"task {spec.uid} can run in no pool ({'; '.join(reasons)})")
        return tuple(possible)

    def keep_places(self) -> None:
        """What still runs keeps its place until it is asked for again, whatever is submitted before."""
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

    def resume(self, task: Task) -> bool:
        """Go on with what a former controller has left of a task; False if there is nothing."""
        finished, launched = self.history.finished.get(task.uid), self.history.attempts.get(task.uid)
        task.failures = self.history.failures.get(task.uid, 0)
        if launched is not None:
            task.attempt = max(task.attempt, launched.number + (finished is None))
        if finished is not None:
            task.stop = TaskState.CANCELED if finished.stopped else None
            task.failures, task.node_failures = task.spec.retries, NODE_FAILURES  # it is final, as it was then
            self.scheduler.tasks[task.uid] = task
            self.scheduler.ended(task, finished, self.now())
            return True
        pool = next((p for p in self.pools if launched is not None and p.has_run(launched)), None)
        if launched is None or pool is None or task.spec.function is not None:
            return False
        now_s, allocation = self.now(), pool.claim(task.spec, launched)
        attempt = Attempt(
            attempt_key(task.uid, launched.number),
            task.uid,
            launched.number,
            task.spec,
            task.need,
            allocation or (),
            ran_s=max(now_s - launched.since_s, 0.0),
        )
        if not pool.backend.adopt(attempt):
            pool.nodes.release(allocation or ())
            return False
        task.attempt, task.pool = launched.number, pool.nodes
        self._attempts[attempt.key] = task
        if allocation is not None:
            self.scheduler.adopt(task, pool.nodes, allocation, now_s, launched.since_s)
            if task.future is not None:
                task.future.set_running_or_notify_cancel()
        else:  # others have its place by now: it runs again when it has stopped
            self.scheduler.tasks[task.uid] = task
            task.stop = TaskState.PREEMPTED
            pool.backend.stop(attempt.key, 5.0)
        return True

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
            if not self._begin(task):
                self.ended(task, AttemptOutcome(stopped=True))
                return
            self.scheduler.enter(task, TaskState.LAUNCHING, self.now())
            key = task.key
            self._attempts[key] = task
            if self._of[task.pool].backend.start(self._attempt(task, key)):
                self._started(task)
        except BaseException as error:
            self._attempts.pop(task.key, None)
            message = str(error) if isinstance(error, RlctlError | OSError) else described(error)
            cause = error.__cause__ if isinstance(error, LaunchError) and error.__cause__ is not None else error
            self.ended(task, AttemptOutcome(failure=Failure.LAUNCH, message=message, error=cause))
            if not isinstance(error, Exception):  # an interrupt, while arguments are pickled in the user's thread
                raise

    def _attempt(self, task: Task, key: str) -> Attempt:
        return Attempt(key, task.uid, task.attempt, task.spec, task.need, task.allocation, task.call)

    def _begin(self, task: Task) -> bool:
        """Mark the future as running; False if the task was withdrawn before."""
        future = task.future
        if future is not None and future.done() and not future.cancelled():
            future = task.future = None  # its owner has given it a result
        first = task.attempt == 1 or (future is not None and not future.running())
        if task.stop is None and future is not None and first and not future.set_running_or_notify_cancel():
            task.stop = TaskState.CANCELED
        return task.stop is None

    # Stopping.

    def stop(self, task: Task, grace_s: float) -> None:
        """Stop a task that holds resources."""
        if task.state is TaskState.SCHEDULED or task.pool is None:  # ``_launch`` finds out
            return
        key, pool = task.key, self._of[task.pool]
        if not pool.closed and pool.backend.stop(key, grace_s):
            self._attempts.pop(key, None)
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
        """Take in what has happened."""
        for event in events:
            if isinstance(event, Exited):
                task = self._attempts.pop(event.key, None)
                if task is not None and event.outcome is not None:
                    self.ended(task, event.outcome)
                else:
                    pool.exited(event.key)
                    self.scheduler.touch()
            elif isinstance(event, NodesChanged):
                pool.change(event)
                self.scheduler.touch()
                self.news.notify_all()  # ``wait`` may start something now
            elif isinstance(event, AllocationExpires):
                self.expires = True
                self.news.notify_all()
            elif (task := self._attempts.get(event.key)) is not None:
                if isinstance(event, Started):
                    self._started(task, event)
                elif isinstance(event, Progress) and task.state is TaskState.RUNNING:
                    self._progress(task, event)

    def _started(self, task: Task, started: Started | None = None) -> None:
        if task.state is not TaskState.LAUNCHING:
            return
        self.scheduler.enter(task, TaskState.RUNNING, self.now())
        if self.task_log is not None and started is not None:
            self.task_log.started(self.log[-1], started.details)
        if task.hold and task.stop is None:
            self.suspend(task)

    def _progress(self, task: Task, progress: Progress) -> None:
        """Report progress; what has been reported and not returned before is out of date."""
        before = next((e for e in self.pending if e.uid == task.uid and e.progress is not None), None)
        if before is not None and self.clock is None:
            self.pending.remove(before)
        event = self.scheduler.progress(task, self.now(), progress.data)
        self.log.append(event)
        self.pending.append(event)
        self.news.notify_all()

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

    def withdrawn(self, task: Task) -> None:
        """Record that a waiting task is about to be canceled."""
        if self.task_log is not None and self.task_log.at_once:
            task.stop = TaskState.CANCELED
            self.task_log.event(event_after(task, AttemptOutcome(stopped=True), self.now()))

    def take(self) -> list[Event]:
        """Record the pending events, and take them."""
        events = list(self.pending)
        self.pending.clear()
        if self.task_log is not None:
            self.task_log.returned(events)
            self.acknowledge()
        return events

    def acknowledge(self) -> None:
        """All that was returned is recorded: backends may forget it."""
        for backend, key in self._unacknowledged:
            backend.acknowledge(key)
        self._unacknowledged.clear()

    def _report(self, task: Task, event: Event, outcome: AttemptOutcome | None) -> None:
        """Of the scheduler: a task has another state."""
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
                self.news.notify_all()
        elif returned or (final and not self.eager):
            self.news.notify_all()

    def announce(self, task: Task, waits: bool) -> None:
        """Tell backends that want to know of an attempt that waits, or waits no more."""
        for nodes in task.pools:
            if (pool := self._of[nodes]).announces:
                key = task.key
                if waits:
                    pool.backend.announce(self._attempt(task, key))
                else:
                    pool.backend.withdraw(key)

    def _resolve(self, task: Task, result: TaskResult, outcome: AttemptOutcome | None) -> None:
        future, task.future = task.future, None
        if outcome is not None and task.call is not None:
            value, error = outcome.value, outcome.error
        else:
            value, error = result.values, None
        self.lock.after(partial(future.resolve, result, value, error))

    # Errors, threads and the end.

    def guarded(self, work: Callable[[], object]) -> None:
        """Call what serves all tasks; an unexpected error ends the executor, so that nothing hangs.

        Every future and every caller of ``wait`` learns why. What is wrong with one task does not come here.
        """
        try:
            work()
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # an interrupt; it is the caller's
            self.end_with(ExecutorBroken(str(error) if isinstance(error, RlctlError) else crash_report.report(error)))

    def end_with(self, error: RlctlError) -> None:
        """Nothing can be recorded, or started, any more: whatever waits fails."""
        with self.lock:
            if self.broken is not None:
                return
            self.broken = error
            for task in list(self.scheduler.tasks.values()):
                future = task.future
                if future is not None and not future.done():
                    self.lock.after(partial(fail, future, type(error)(str(error))))
                    task.future = None
            self.news.notify_all()
            self.wake()

    def raise_if_broken(self) -> None:
        """Raise what has ended the executor."""
        if self.broken is not None:
            raise self.broken

    def wake(self) -> None:
        """End the sleep of the threads."""
        self.news.notify_all()
        for pool in self.pools:
            if pool.thread is not threading.current_thread():
                pool.backend.wake()

    def _written(self, then: Callable[[], object], error: RlctlError | None) -> None:
        """In the journal's thread: a record is on disk, or cannot be written."""

        def go_on() -> None:
            with self.lock:
                if error is not None:
                    self.end_with(error)
                else:
                    then()

        self.guarded(go_on)

    @property
    def _over(self) -> bool:
        return self.broken is not None or (self.closing and not self.scheduler.tasks)

    def _serve(self, pool: DrivenPool) -> None:
        """The thread of a backend; whatever comes, it closes the backend in the end."""
        self.guarded(partial(self._run_clock if self.clock is not None else self._poll, pool))
        self.guarded(partial(self.close, pool))

    def _poll(self, pool: DrivenPool) -> None:
        while True:
            with self.lock:
                if self.closing and self._over:
                    return
            events = pool.backend.poll(None)
            with self.lock:
                self.handle(pool, events)
                self.pump()

    def _run_clock(self, pool: DrivenPool) -> None:
        while True:
            with self.lock.lock:
                while not self.scheduler.running or self.broken is not None:
                    if self._over:
                        return
                    self.news.wait()
            with self.lock:
                self.handle(pool, events := pool.backend.poll(None))
                self.pump()
            if not events:  # everything that runs, hangs: until it is stopped
                with self.lock.lock:
                    self.news.wait(0.05)

    def close(self, pool: DrivenPool) -> None:
        """Close a backend, which is not polled any more."""
        with self.lock:
            if pool.closed:
                return
            if self.broken is None:
                pool.drop_unclaimed()
                self.acknowledge()
            pool.closed = True
        pool.backend.close(keep_outcomes=self.broken is not None)
        if all(each.closed for each in self.pools):
            with self.lock:
                self.scheduler.clear()


def fail(future: TaskFuture, error: BaseException) -> None:
    """Give a future its error, unless it was withdrawn meanwhile."""
    with suppress(Exception):
        future.set_exception(error)
