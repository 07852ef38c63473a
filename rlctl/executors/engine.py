"""The part that all executors share: books, futures, events, write-ahead. Where tasks run is up to the subclass."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rlctl.core.errors import RlctlError, described
from rlctl.core.machine import Capacity, Machine, Scoring
from rlctl.core.spec_values import asked, count, number, seconds, signal_number
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskResult, TaskSpec, TaskState
from rlctl.executors.base import Executor, ExecutorStatus, RunningTask
from rlctl.executors.futures import ExecutorBroken, TaskFuture
from rlctl.executors.pool import Placement, Pool, core_numbers
from rlctl.executors.recovery import KINDS, Past
from rlctl.executors.scheduler import LOSSES, WAITING, Ending, Scheduler, Task
from rlctl.executors.sharing import Common, Share
from rlctl.system import crash_report

if TYPE_CHECKING:
    from rlctl.core.records import Recorder

_T = TypeVar("_T")

_TOLD = frozenset(
    {
        TaskState.RUNNING,
        TaskState.SUSPENDED,
        TaskState.PREEMPTED,
        TaskState.DONE,
        TaskState.FAILED,
        TaskState.CANCELED,
    }
)


PROGRESS_S = 0.25
"""How often the files are looked at to which tasks report."""

ASIDE = frozenset({TaskState.HELD, TaskState.SUSPENDED})

CALL = TaskSpec(TaskId("call"), function="submit:")
"""What all calls that were given as functions have in common."""


def rest_s(left_s: float | None, reads: bool) -> float | None:
    """How long to sleep where so much time is left (None: all), and files with reports are looked at or not.

    >>> rest_s(None, False), rest_s(None, True), rest_s(9.0, True), rest_s(0.0, True)
    (None, 0.25, 0.25, 0.0)
    """
    if not reads:
        return left_s
    return PROGRESS_S if left_s is None else min(left_s, PROGRESS_S)


class BookedExecutor(Executor):
    """An executor with a ``Scheduler``; subclasses start and stop tasks.

    A subclass calls ``_started`` and ``_ended`` for what it has launched, and ``_pump`` when something has changed.
    Its hooks are called with the lock held.
    """

    deterministic: ClassVar[bool] = False

    def __init__(
        self,
        capacity: Capacity,
        *,
        eager: bool,
        journal: Recorder | None = None,
        scoring: Scoring | None = None,
        backfill: bool = False,
        pool: Pool | None = None,
        share: Share | None = None,
    ) -> None:
        """Make the books.

        Args:
            capacity: the allocation.
            eager: whether tasks start as soon as they fit; otherwise inside ``wait`` only.
            journal: as for ``attach``, but who takes the events records them: ends are not recorded here.
            scoring: chooses nodes; None: where the least is left for others.
            backfill: whether tasks may overtake one that does not fit yet.
            pool: the books of the machine; None: those of ``capacity`` and ``scoring``.
            share: its part in a campaign of several pools; None: it is alone.
        """
        self.capacity = capacity
        self._share = share
        common = share.common if share is not None else Common(eager)
        self._mutex, self._news, self._calls = common.mutex, common.news, common.calls
        self._books = Scheduler(pool or Pool(capacity, scoring), self._report, backfill, common.numbers)
        self._eager = eager
        self._gate = eager
        self._journal = journal
        self._records_ends = False
        self._known: dict[TaskId, TaskFuture] = {}
        self._log, self._untold = common.log, common.untold
        self._version = self._books.pool.version
        self._closing = False
        self._broken: RlctlError | None = None
        self._past = Past()

    # What subclasses do.

    @abstractmethod
    def _launch(self, task: Task) -> None:
        """Start a task that has been given its place; may call ``_ended`` at once if that fails."""

    @abstractmethod
    def _halt(self, task: Task, grace_s: float) -> None:
        """Stop a task; ``_ended`` follows when it is dead."""

    @abstractmethod
    def _send(self, task: Task, number: int) -> None:
        """Signal all processes of a running task."""

    @abstractmethod
    def _suspend(self, task: Task, suspended: bool) -> None:
        """Suspend or continue a task; its state is set by the caller."""

    @abstractmethod
    def _accept(self, spec: TaskSpec) -> None:
        """Refuse, by ``LaunchError``, what can never run here for another reason than its size."""

    @abstractmethod
    def _rest(self, timeout_s: float | None, idle: bool = False) -> bool:
        """Sleep until something may have changed, at most so long; False if nothing can happen within that time.

        Args:
            idle: also where nothing is queued or running.
        """

    # What users do; see ``Executor``.

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Run a function on one core; what it returns, or raises, is the future's."""
        uid = TaskId(f"#{next(self._calls)}")
        future = TaskFuture(uid, self)
        with self._mutex:
            self._usable()
            task = self._books.new(CALL)
            task.uid, task.work, task.future = uid, (fn, args, kwargs), future
            now_s = self.now()
            self._books.submit(task, now_s)
            if self._records_ends and self._journal is not None:
                self._journal.write("submitted", now_s, {"uid": uid, "attempt": 1, "function": function_name(fn)})
            self._pump()
        return future

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> TaskFuture:
        """Queue a task; see ``Executor``."""
        with self._mutex:
            self._usable()
            known = self._known.get(spec.uid)
            if known is not None:
                return known
            self.check(spec)
            task = self._books.new(spec, attempt)
            future = task.future = self._known[spec.uid] = TaskFuture(spec.uid, self)
            if self._resume(task):
                return future
        try:
            if self._journal is not None:
                data = {"uid": spec.uid, "attempt": task.attempt, "parameters": dict(spec.parameters)}
                self._journal.append("submitted", self.now(), data)
            with self._mutex:
                self._usable()  # still: the disk may have taken its time
                self._books.submit(task, self.now())
                self._pump()
        except BaseException as error:
            with self._mutex:
                del self._known[spec.uid]
                self._mutex.after(partial(_fail, future, error))  # others may have been given it
            raise
        return future

    def check(self, spec: TaskSpec) -> None:
        """Refuse what can never run here.

        Raises:
            LaunchError: why.
        """
        with self._mutex:
            self._books.check(spec)
            self._accept(spec)

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task; see ``Executor``."""
        grace_s = asked("grace_s", grace_s, seconds)
        with self._mutex:
            self._withdraw(uid, grace_s)
            self._pump()

    def _withdraw(self, uid: TaskId, grace_s: float) -> None:
        known = self._books.tasks.get(uid)
        if known is not None and self._records_ends and self._journal is not None and known.state in WAITING:
            data = {"uid": uid, "attempt": known.attempt, "state": TaskState.CANCELED.value}
            self._journal.write("finished", self.now(), data)
        task = self._books.cancel(uid, self.now())
        if task is not None:
            self._stop(task, grace_s)

    def _close_up(self, cancel_futures: bool) -> None:
        """Take no more tasks; withdraw what waits, or let go of what is held."""
        self._closing = True
        for task in list(self._books.tasks.values()):
            if cancel_futures and task.state in WAITING:
                self._withdraw(task.uid, 0.0)
            elif task.state in ASIDE or task.hold:
                self.release(task.uid)

    def signal(self, uid: TaskId, number: int) -> None:
        """Send a signal to every process of a running task; see ``Executor``."""
        number = asked("signal", number, signal_number)
        with self._mutex:
            task = self._books.running.get(uid)
            if task is not None and task.state in (TaskState.RUNNING, TaskState.SUSPENDED):
                self._send(task, number)
                self._pump()

    def hold(self, uid: TaskId) -> None:
        """Keep a task from starting, or suspend it; see ``Executor``."""
        with self._mutex:
            task = self._books.hold(uid, self.now())
            if task is not None:
                self._set_aside(task)

    def _set_aside(self, task: Task) -> None:
        self._suspend(task, True)
        self._books.enter(task, TaskState.SUSPENDED, self.now())

    def release(self, uid: TaskId) -> None:
        """Undo ``hold``."""
        with self._mutex:
            task = self._books.release(uid, self.now())
            if task is not None:
                self._suspend(task, False)
                self._books.enter(task, TaskState.RUNNING, self.now())
            self._pump()

    def update(self, uid: TaskId, *, priority: float | None = None, resources: Resources | None = None) -> None:
        """Change what a task asks for; see ``Executor``."""
        priority = None if priority is None else asked("priority", priority, number)
        with self._mutex:
            task = self._books.update(uid, self.now(), priority, resources)
            if task is not None:
                self._stop(task, 5.0)
            self._pump()

    def resize(self, nodes: int) -> None:
        """Have so many nodes from now on; see ``Executor``."""
        nodes = asked("nodes", nodes, count)
        with self._mutex:
            for task in self._books.resize(nodes):
                self._stop(task, 5.0)
            self._pump()

    def events(self, since: int = 0) -> list[Event]:
        """Every change of state with a larger ``seq``."""
        with self._mutex:
            return [event for event in self._log if event.seq > since]

    def status(self) -> ExecutorStatus:
        """How it stands."""
        with self._mutex:
            running = [
                RunningTask(t.uid, t.attempt, t.state, t.need, {p.node: p.ranks for p in t.placement}, t.started_s)
                for t in self._books.running.values()
            ]
            nodes = list(self._books.pool.states())
            return ExecutorStatus(
                self.now(),
                self._books.seq,
                len(nodes),
                self._books.waiting,
                self._books.held,
                running,
                sum(node.free_cores for node in nodes),
                sum(node.free_gpus for node in nodes),
            )

    def attach(self, journal: Recorder) -> None:
        """From now on, write tasks, launches and results to a journal before they take effect."""
        from rlctl.executors.event_log import Journal

        with self._mutex:
            if isinstance(journal, Journal):
                self._past = Past.read(journal.records(kinds=KINDS))
            self._journal, self._records_ends = journal, True

    def place_by(self, scoring: Scoring) -> None:
        """Let this say which nodes tasks go to; see ``Executor``."""
        with self._mutex:
            self._books.pool.scoring = scoring

    def machine(self) -> Machine:
        """Which nodes are there now; see ``Executor``."""
        with self._mutex:
            pool = self._books.pool
            return Machine(pool.nodes, pool.absent, pool.nodes)

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Start what fits, then wait for the next events; see ``Executor``."""
        timeout_s = None if timeout_s is None else asked("timeout_s", timeout_s, number)
        end_s = None if timeout_s is None else self.now() + timeout_s
        first = True
        while True:
            with self._mutex:
                self.fail_if_broken()
                if first:
                    self.begin_wait()
                elif self._may_return(idle):
                    return self._take_events()
                self.start_what_fits()  # calls end without an event, so that others have room now
                reads = self.look_at_progress()
                if self._may_return(idle):
                    return self._take_events()
            first = False
            self.heed_the_end()
            left_s = None if end_s is None else max(end_s - self.now(), 0.0)
            if not self._rest(rest_s(left_s, reads), idle) or left_s == 0.0:
                with self._mutex:
                    return self._take_events()

    def _may_return(self, idle: bool) -> bool:
        """Whether there is something to tell, or nothing to wait for."""
        return bool(self._untold) or (self.machine_changed if idle else self.idle)

    @property
    def machine_changed(self) -> bool:
        """Whether nodes have come or gone since events were taken last."""
        return self._books.pool.version != self._version

    def _take_events(self) -> list[Event]:
        events = list(self._untold)
        self._untold.clear()
        self.note_machine()
        return events

    # For subclasses, and for whoever waits for several pools; with the lock held.

    def note_machine(self) -> None:
        """Whoever takes events looks at the machine as well."""
        self._version = self._books.pool.version

    def look_at_progress(self) -> bool:
        """Tell what running tasks have reported; False if none of them reports to a file."""
        reports = False
        for task in self._books.running.values():
            if task.spec.progress_file is not None and task.state is TaskState.RUNNING:
                reports = True
                if (progress := self._progress(task)) is not None:
                    self._reported(task, progress)
        return reports

    def _progress(self, task: Task) -> Mapping[str, Any] | None:
        """What a running task has reported since the last look; None: nothing, or nobody reads it."""
        return None

    def _reported(self, task: Task, progress: Mapping[str, Any]) -> None:
        """A task that goes on running says how far it is."""
        event = self._books.event(task, self.now(), progress)
        self._log.append(event)
        self._untold.append(event)

    def begin_wait(self) -> None:
        """Somebody has recorded all that was told, and waits for more."""
        self.heed_the_end()
        self._taken()

    def heed_the_end(self) -> None:
        """Interrupt whoever waits, if the machine is about to be taken away."""

    def start_what_fits(self) -> None:
        """Give places to what fits, and start it, though tasks may start in ``wait`` only."""
        self._gate = True
        self._pump()
        self._gate = self._eager

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running."""
        return len(self._books.tasks) == self._books.held

    def knows(self, uid: TaskId) -> bool:
        """Whether a task was submitted here."""
        return uid in self._known

    @property
    def broken(self) -> bool:
        """Whether nothing can be recorded any more."""
        return self._broken is not None

    @property
    def books(self) -> Scheduler:
        """To look at."""
        return self._books

    def _usable(self) -> None:
        self.fail_if_broken()
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def fail_if_broken(self) -> None:
        """Say why nothing can be recorded any more, if so it is."""
        if self._broken is not None:
            raise self._broken

    def _break(self, error: RlctlError) -> None:
        """Nothing can be recorded, or started, any more: everything waiting fails, whoever asks is told."""
        with self._mutex:
            if self._broken is not None:
                return
            self._broken = error
            for task in list(self._books.tasks.values()):
                future = task.future
                if future is not None and not future.done():
                    self._mutex.after(partial(_fail, future, type(error)(str(error))))
                    task.future = None
            self._news.notify_all()

    def _guarded(self, work: Callable[[], object]) -> None:
        """What a thread does that serves all tasks; the books cannot be relied on after what it did not expect.

        The executor ends then: every future and every caller of ``wait`` is told why, so that nothing hangs. What is
        wrong with one task is not to come here: see ``_go`` and ``_end``.
        """
        try:
            work()
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # an interrupt; it is the caller's
            self._break(ExecutorBroken(str(error) if isinstance(error, RlctlError) else crash_report.report(error)))

    def _write(self, kind: str, data: Mapping[str, Any], then: Callable[[RlctlError | None], object]) -> None:
        """Record something, and go on, in the journal's thread, when it is on disk."""
        assert self._journal is not None
        self._journal.write(kind, self.now(), data, lambda error: self._guarded(lambda: then(error)))

    def _taken(self) -> None:
        """Whoever takes the events has taken, and recorded, all that were told."""

    def _resume(self, task: Task) -> bool:
        """Go on with what a former controller has left of this task; False if there is nothing."""
        finished, attempt = self._past.finished.get(task.uid), self._past.attempts.get(task.uid)
        task.failures = self._past.failures.get(task.uid, 0)
        if attempt is not None:
            task.attempt = max(task.attempt, attempt.number + (finished is None))
        if finished is None:
            return False
        with self._mutex:
            task.stop = TaskState.CANCELED if finished.stopped else None
            task.failures, task.losses = task.spec.retries, LOSSES  # it is final, as it was then
            self._books.tasks[task.uid] = task
            self._books.ended(task, finished, self.now())
        return True

    def _pump(self) -> None:
        """Give places to what fits, and start it."""
        if not self._gate or self._broken is not None:
            return
        while placed := self._books.schedule(now_s := self.now()):  # again, where a launch has failed at once
            self._start(placed, now_s)

    def _start(self, placed: Iterable[Task], now_s: float) -> None:
        for task in placed:
            if task.trouble is not None:
                self._ended(task, Ending(failure=Failure.LAUNCH, message=task.trouble))
                continue
            if self._journal is None or task.work is not None:  # such a call cannot be asked for again
                self._go(task)
                continue
            data = {"uid": task.uid, "attempt": task.attempt, **self._where(task.placement)}
            if task.spec.function is not None:
                # A call dies with its controller: nobody will look for it, so that nobody needs to wait for the disk.
                self._journal.write("launching", now_s, data)
                self._go(task)
            else:
                self._write("launching", data, partial(self._go_on, task))

    def _go_on(self, task: Task, error: RlctlError | None) -> None:
        with self._mutex:
            self._go(task, error)
            self._pump()

    def _go(self, task: Task, error: RlctlError | None = None) -> None:
        if error is not None:
            self._break(error)
            return
        try:
            if not self._to_begin(task):
                self._ended(task, Ending(stopped=True))
                return
            self._books.enter(task, TaskState.LAUNCHING, self.now())
            self._launch(task)
        except BaseException as unexpected:
            self._ended(task, Ending(failure=Failure.LAUNCH, message=described(unexpected), error=unexpected))
            if not isinstance(unexpected, Exception):  # an interrupt, while arguments are pickled in the user's thread
                raise

    def _to_begin(self, task: Task) -> bool:
        """Tell the future; False if the task was withdrawn before it began."""
        if task.future is not None and task.future.done() and not task.future.cancelled():
            task.future = None  # whose owner has given it a result
        future = task.future
        first = task.attempt == 1 or (future is not None and not future.running())
        if task.stop is None and future is not None and first and not future.set_running_or_notify_cancel():
            task.stop = TaskState.CANCELED
        return task.stop is None

    def _stop(self, task: Task, grace_s: float) -> None:
        if task.state is not TaskState.SCHEDULED:  # otherwise ``_go`` finds out
            self._halt(task, grace_s)

    def _started(self, task: Task) -> None:
        """It runs now."""
        if task.state is TaskState.LAUNCHING:
            self._books.enter(task, TaskState.RUNNING, self.now())
            if task.hold and task.stop is None:
                self._set_aside(task)

    def _end(self, task: Task, read: Callable[[], Ending]) -> None:
        """Nothing of this attempt is alive; how it ended has still to be read from what it has left."""
        try:
            ending = read()
        except Exception as error:
            ending = Ending(failure=Failure.GARBAGE, message=f"its end cannot be read: {described(error)}", error=error)
        self._ended(task, ending)

    def _ended(self, task: Task, ending: Ending) -> None:
        """Nothing of this attempt is alive."""
        if not self._records_ends or self._journal is None:
            self._books.ended(task, ending, self.now())
            return
        self._books.free(task)
        state = self._books.verdict(task, ending)
        data = {"uid": task.uid, "attempt": task.attempt, "state": state.value}
        if state is TaskState.DONE and task.work is None:
            data["values"] = dict(ending.values)
        if state is TaskState.FAILED and ending.failure is not None:
            data |= {"failure": ending.failure.value, "message": ending.message}

        def done(error: RlctlError | None) -> None:
            if error is not None:
                self._break(error)
                return
            with self._mutex:
                if self._books.verdict(task, ending) is not state:  # canceled meanwhile
                    self._ended(task, ending)
                    return
                self._recorded(task)
                self._books.ended(task, ending, self.now())
                self._pump()

        self._write("finished", data, done)

    def _recorded(self, task: Task) -> None:
        """How this attempt ended is in the journal."""

    def _report(self, task: Task, event: Event, ending: Ending | None) -> None:
        self._log.append(event)
        future = task.future
        if task.work is None and (event.state in _TOLD or (event.state is TaskState.QUEUED and event.attempt > 1)):
            self._untold.append(event)
            self._news.notify_all()
        if future is not None:
            future.state, future.attempt = event.state, event.attempt
            if event.result is not None:
                self._resolve(task, event.result, ending)
                if not self._eager and task.work is not None:
                    self._news.notify_all()

    def _resolve(self, task: Task, result: TaskResult, ending: Ending | None) -> None:
        future, task.future = task.future, None
        if ending is not None and task.work is not None:
            value, error = ending.value, ending.error
        else:
            value, error = result.values, None
        self._mutex.after(lambda: future.resolve(result, value, error))

    def _where(self, placement: Placement) -> Mapping[str, Any]:
        """A placement as journals have it: node n has the core numbers from n times the cores of a node."""
        width, first, several = self.capacity.cores, self._first_node, self.capacity.nodes > 1
        cores = [(first + part.node) * width + core for part in placement for core in core_numbers(part.cores)]
        gpus = {
            f"node{first + p.node}:{device}" if several or self._share is not None else str(device): share / 1000
            for p in placement
            for device, share in p.gpus
        }
        where = {"cores": cores, "gpus": gpus}
        return where if self._share is None else {**where, "pool": self._share.pool}

    @property
    def _first_node(self) -> int:
        """Its number in journals: nodes of several pools are numbered through."""
        return 0 if self._share is None else self._share.first_node


def function_name(function: Callable[..., Any]) -> str:
    """Module and name, as a ``TaskSpec`` would have it."""
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"


def _fail(future: TaskFuture, error: BaseException) -> None:
    with suppress(Exception):  # it was withdrawn meanwhile
        future.set_exception(error)
