"""The executor: one engine for all backends. It owns queue, node pools, task states, futures and journal."""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import rlctl.executors.task_control as commands
from rlctl.core.machine import Capacity, Machine, Scoring
from rlctl.core.records import Recorder
from rlctl.core.spec_values import asked, count, number, seconds, signal_number
from rlctl.core.task import Event, Resources, TaskId, TaskSpec
from rlctl.executors.backend import Backend
from rlctl.executors.backend_polling import join, serve, wait_for_events
from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.driven_pool import possible_pools
from rlctl.executors.event_log import Journal
from rlctl.executors.executor_status import ExecutorStatus, machine_of, status_of
from rlctl.executors.factory import BackendFactory, PoolPlan
from rlctl.executors.futures import TaskFuture, call_each, fail, function_name
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.pool import NodePool
from rlctl.executors.recovery import KINDS, History
from rlctl.executors.task_log import TaskLog

_T = TypeVar("_T")

_CALL = TaskSpec(TaskId("call"), function="submit:")
"""What all calls that were given to ``submit`` have in common."""

_CLOSE_S = 10.0


class Executor(concurrent.futures.Executor):
    """Runs tasks within a capacity; a ``concurrent.futures.Executor`` with resources, states and control.

    ``submit`` and ``map`` take functions, for any library that wants an executor. ``submit_task`` takes what campaigns
    have: programs and named functions with resources. An executor that was opened for a campaign starts tasks only
    inside ``wait``, so that all decisions due at one instant are answered before any of them takes a core; otherwise
    tasks start as soon as they fit. Highest priority first, then in order of submission; where the first does not fit,
    others fill the gaps without delaying it. With several pools a task goes to the one that it names, or to the first
    that has room for it when its turn comes.

    All methods may be called from any thread. Ended and unknown tasks are ignored where a uid is given.

    Attributes:
        capacity: of all pools together.
    """

    capacity: Capacity

    def __init__(
        self,
        pools: Backend | Sequence[PoolPlan],
        journal: Recorder | None = None,
        start_s: float = 0.0,
        *,
        eager: bool = True,
        scoring: Scoring | None = None,
        history: History | None = None,
    ) -> None:
        """Open the backends.

        Args:
            pools: one backend, or several pools. Nodes are numbered through in ``status`` and in the journal.
            journal: where tasks, launches and events are written: what ``wait`` returns is in it. See ``attach`` for an
                executor that is used by futures.
            start_s: where the clock stands; a resumed campaign goes on where it stood.
            eager: whether tasks start as soon as they fit; otherwise inside ``wait`` only.
            scoring: chooses nodes; None: those on which the least is left for others.
            history: what the journal says of former controllers.

        Raises:
            LaunchError: a machine has less than is asked for, or another executor uses the folder.
        """
        plans = tuple(pools) if isinstance(pools, Sequence) else (PoolPlan(pools, backfill=eager),)
        first = plans[0].backend.capacity
        several = len(plans) > 1
        self.capacity = replace(first, nodes=sum(p.backend.capacity.nodes for p in plans)) if several else first
        task_log = None if journal is None else TaskLog(journal, at_once=False)
        self._dispatch = Dispatcher(
            plans, eager=eager, task_log=task_log, history=history or History(), start_s=start_s
        )
        self._lock, self._scheduler = self._dispatch.lock, self._dispatch.scheduler
        self._futures: dict[TaskId, TaskFuture] = {}
        self._calls = 0
        self._call_pools: tuple[NodePool, ...] | None = None
        if scoring is not None:
            self.place_by(scoring)
        if self._dispatch.clock is None:
            self._at_exit = partial(_finish, weakref.ref(self), os.getpid())
            atexit.register(self._at_exit)
        serve(self._dispatch)

    @classmethod
    def open(
        cls,
        factory: BackendFactory,
        capacity: Capacity,
        workdir: Path,
        journal: Journal,
        start_s: float,
        scoring: Scoring | None = None,
    ) -> Executor:
        """Open the executor of a campaign, which continues the tasks in its journal.

        Args:
            factory: of the backends, as a configuration describes them.
            workdir: working directory of the tasks.

        Raises:
            LaunchError: there is less than ``capacity``.
        """
        pools, history = factory.pools(capacity, workdir), History.read(journal.records(kinds=KINDS))
        return cls(pools, journal, start_s, eager=False, scoring=scoring, history=history)

    def now(self) -> float:
        """Seconds since the campaign began (virtual or real, a resumed run goes on where it stood)."""
        return self._dispatch.now()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Run a function on one core; what it returns, or raises, is the future's."""
        dispatch = self._dispatch
        with self._lock:
            self._require_open()
            self._calls += 1
            uid = TaskId(f"#{self._calls}")
            if self._call_pools is None:
                self._call_pools = possible_pools(dispatch.pools, _CALL)
            task = self._scheduler.new(_CALL, self._call_pools)
            task.uid, task.call = uid, (fn, args, kwargs)
            future = task.future = TaskFuture(uid, self.cancel)
            now_s = dispatch.now()
            self._scheduler.submit(task, now_s)
            if dispatch.task_log is not None and dispatch.task_log.at_once:
                dispatch.task_log.submitted_call(uid, now_s, function_name(fn))
            dispatch.pump()
        return future

    def map(
        self, fn: Callable[..., _T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[_T]:
        """As ``concurrent.futures.Executor.map``; with ``chunksize`` so many items go to a worker at a time."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        items = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(itertools.islice(items, chunksize)), ())
        return itertools.chain.from_iterable(super().map(partial(call_each, fn), chunks, timeout=timeout))

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> TaskFuture:
        """Queue a task. A uid that is already known is ignored, and its future returned.

        Args:
            attempt: number of its first attempt. One that a former controller has left is gone on with, where it is
                still there.

        Raises:
            LaunchError: it can never run here; the message says why.
        """
        dispatch = self._dispatch
        with self._lock:
            self._require_open()
            known = self._futures.get(spec.uid)
            if known is not None:
                return known
            task = self._scheduler.new(spec, possible_pools(dispatch.pools, spec), attempt)
            future = task.future = self._futures[spec.uid] = TaskFuture(spec.uid, self.cancel)
            if commands.resume(dispatch, task):
                return future
        try:
            if dispatch.task_log is not None:
                dispatch.task_log.submitted(spec.uid, task.attempt, self.now(), spec.parameters)
            with self._lock:
                self._require_open()  # still: the disk may have taken its time
                self._scheduler.submit(task, self.now())
                dispatch.pump()
        except BaseException as error:
            with self._lock:
                del self._futures[spec.uid]
                self._lock.after(partial(fail, future, error))  # others may have been given it
            raise
        return future

    def submit_tasks(self, specs: Iterable[TaskSpec]) -> list[TaskFuture]:
        """Queue many tasks."""
        return [self.submit_task(spec) for spec in specs]

    def cancel(self, uid: TaskId, grace_s: float = commands.STOP_S) -> None:
        """Stop a task: SIGTERM, and SIGKILL after ``grace_s``. It is CANCELED when it is confirmed dead."""
        grace_s = asked("grace_s", grace_s, seconds)
        with self._lock:
            commands.cancel(self._dispatch, uid, grace_s)
            self._dispatch.pump()

    def signal(self, uid: TaskId, number: int) -> None:
        """Send a signal to every process of a running task."""
        number = asked("signal", number, signal_number)
        with self._lock:
            commands.signal(self._dispatch, uid, number)
            self._dispatch.pump()

    def hold(self, uid: TaskId) -> None:
        """Keep a waiting task from starting (HELD); suspend a running one (SUSPENDED), which keeps its resources.

        One that is being started is suspended as soon as it runs. One that has to run again is held until then.
        """
        with self._lock:
            commands.hold(self._dispatch, uid)

    def release(self, uid: TaskId) -> None:
        """Undo ``hold``."""
        with self._lock:
            commands.release(self._dispatch, uid)
            self._dispatch.pump()

    def update(self, uid: TaskId, *, priority: float | None = None, resources: Resources | None = None) -> None:
        """Change what a task asks for. A running one with other resources is stopped (PREEMPTED) and queued again.

        Raises:
            LaunchError: it can never run with these resources; nothing is changed.
        """
        priority = None if priority is None else asked("priority", priority, number)
        with self._lock:
            commands.update(self._dispatch, uid, priority, resources)
            self._dispatch.pump()

    def resize(self, nodes: int) -> None:
        """Have so many nodes from now on, those with the lowest numbers; more than there were are the last pool's.

        Tasks on those that go are stopped (PREEMPTED) and queued again.
        """
        nodes = asked("nodes", nodes, count)
        with self._lock:
            self._call_pools = None
            commands.resize(self._dispatch, nodes)
            self._dispatch.pump()

    def attach(self, journal: Recorder) -> None:
        """From now on, write tasks, launches and results to a journal before they take effect.

        Tasks that the journal knows as ended are not run again: ``submit_task`` returns their result.
        """
        dispatch, history = self._dispatch, None
        if isinstance(journal, Journal):  # without the lock, which what is being written may need
            history = History.read(journal.records(kinds=KINDS))
        with self._lock:
            dispatch.history = history or dispatch.history
            dispatch.task_log = TaskLog(journal, at_once=True)
            dispatch.keep_places()

    def place_by(self, scoring: Scoring) -> None:
        """From now on, let this say which nodes tasks go to, in each pool."""
        with self._lock:
            for pool in self._scheduler.pools:
                pool.scoring = scoring

    def events(self, since: int = 0) -> list[Event]:
        """Every change of state with a larger ``seq``; only the last 65,536 are kept."""
        with self._lock:
            return [event for event in self._dispatch.log if event.seq > since]

    def status(self) -> ExecutorStatus:
        """The state of all pools together."""
        with self._lock:
            return status_of(self._dispatch)

    def machine(self) -> Machine:
        """Which nodes are there now."""
        with self._lock:
            return machine_of(self._dispatch)

    def wait(self, timeout_s: float | None = None, *, idle: bool = False, starts: bool = True) -> list[Event]:
        """Start what fits, then wait for the next events of tasks and return them in order.

        These are starts, ends, suspensions, preemptions, repeated attempts, and progress. Returns an empty list when
        the timeout passes, or at once when nothing is queued or running.

        Args:
            idle: wait also where nothing is queued or running, but return when nodes come or go.
            starts: False: start nothing, though it fits.
        """
        timeout_s = None if timeout_s is None else asked("timeout_s", timeout_s, number)
        return wait_for_events(self._dispatch, timeout_s, idle, starts)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As ``concurrent.futures``: take no more tasks; let those there are come to their end, then release all.

        What is held or suspended is released: nothing else may be left to do so.
        """
        dispatch = self._dispatch
        with self._lock:
            commands.close_up(dispatch, cancel_futures)
            if dispatch.clock is None:
                dispatch.gate = dispatch.eager = True  # ``wait`` is not called any more
            dispatch.pump()
            dispatch.wake()
        if not wait:
            return
        if join(dispatch):
            if dispatch.clock is None:
                atexit.unregister(self._at_exit)
        elif dispatch.clock is not None and not dispatch.eager:
            before = -1
            while self._scheduler.tasks and self._scheduler.seq != before:  # else what is left hangs, or never fits
                before = self._scheduler.seq
                self.wait()

    def close(self) -> None:
        """Stop everything that still runs, confirm it, and release all; may be called twice."""
        dispatch = self._dispatch
        with self._lock:
            dispatch.closing = True
            for uid in list(self._scheduler.tasks):
                commands.cancel(dispatch, uid, GRACE_S)
            dispatch.pump()
        if dispatch.clock is None:
            self.shutdown()
            return
        end_s = time.monotonic() + _CLOSE_S
        with self._lock.news:  # what is still being written to the journal
            while self._scheduler.tasks and dispatch.broken is None and time.monotonic() < end_s:
                self._lock.news.wait(0.02)
            dispatch.wake()
        join(dispatch)

    def _require_open(self) -> None:
        if self._dispatch.broken is not None:
            raise self._dispatch.broken
        if self._dispatch.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")


def _finish(reference: weakref.ref[Executor], pid: int) -> None:
    """At exit: complete what an eager executor has, as ``concurrent.futures`` do; tasks of a campaign are stopped."""
    executor = reference()
    if executor is not None and os.getpid() == pid:  # not in a forked process
        (executor.shutdown if executor._dispatch.eager else executor.close)()
