"""The simulated executor: a virtual clock, an event heap, and a model of what tasks do."""

from __future__ import annotations

import heapq
import math
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rlctl.core.errors import described
from rlctl.core.machine import Capacity, Machine, Scoring
from rlctl.core.plugin_calls import asking
from rlctl.core.simulation import Checkpointing, Launch, Outage, Simulated, TaskModel
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl.executors.engine import BookedExecutor, function_name
from rlctl.executors.scheduler import Ending, Task

if TYPE_CHECKING:
    from rlctl.core.records import Recorder


class SimulatedExecutor(BookedExecutor):
    """An executor under a virtual clock; see ``rlctl.executors.base.Executor`` for the contract.

    What a task will do is asked of the model once for each attempt, when it is first needed, and delivered when the
    virtual clock reaches its end. A driver of many campaigns may ask for all of them together: ``uncomputed`` lists the
    launches, ``deliver`` takes the answers. A function that was given to ``submit`` really runs, at its virtual end.
    """

    deterministic = True

    def __init__(
        self,
        capacity: Capacity,
        model: TaskModel,
        journal: Recorder | None = None,
        *,
        outages: Sequence[Outage] = (),
        eager: bool = False,
        scoring: Scoring | None = None,
        backfill: bool = False,
    ) -> None:
        """Make a machine of which nothing is occupied.

        Args:
            capacity: the allocation.
            model: what the tasks do.
            journal: is told of submissions and launches, as by a real executor.
            outages: when nodes are not there; what runs on them is lost, and queued again.
            eager: let a thread move the clock whenever a task runs, for those who wait for futures; otherwise the clock
                moves inside ``wait`` only.
            scoring: chooses nodes; None: where the least is left for others.
            backfill: whether tasks may overtake one that does not fit yet; not where a policy decides what starts.
        """
        super().__init__(capacity, eager=eager, journal=journal, scoring=scoring, backfill=backfill)
        self.model = model
        self._now = 0.0
        self._uncomputed: dict[TaskId, Launch] = {}
        self._computed: dict[TaskId, Simulated] = {}
        self._does: dict[TaskId, Simulated] = {}
        self._heap: list[tuple[float, int, TaskId, int]] = []  # (end, order, uid, attempt)
        self._left: dict[TaskId, float] = {}  # seconds that suspended tasks still have to run
        self._pushed = 0
        self._checkpoints = model if isinstance(model, Checkpointing) else None
        self._reports: list[tuple[float, int, TaskId, int, int]] = []  # (time, order, uid, attempt, number)
        self._launched_s: dict[TaskId, float] = {}
        self._ran_on: dict[TaskId, Resources] = {}
        self._unpaid = 0
        self._changes = sorted(
            [(o.from_s, o.node, False, o.paid) for o in outages]
            + [(o.to_s, o.node, True, o.paid) for o in outages if o.to_s < math.inf]
        )
        self._thread: threading.Thread | None = None
        self._change()
        self.note_machine()

    def now(self) -> float:
        """Virtual seconds since the campaign began."""
        return self._now

    @property
    def uncomputed(self) -> list[Launch]:
        """Launches of which the model has not been asked yet."""
        return list(self._uncomputed.values())

    def deliver(self, simulated: Sequence[Simulated]) -> None:
        """The model's answers for ``uncomputed``, in its order."""
        self._computed.update(zip(self._uncomputed, simulated, strict=True))
        self._uncomputed.clear()

    def look_at_progress(self) -> bool:
        """There are no files: tasks report on the virtual clock."""
        return False

    def machine(self) -> Machine:
        """Which nodes are there now; see ``Executor``."""
        pool = self._books.pool
        return Machine(pool.nodes, pool.absent, pool.nodes - self._unpaid)

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Start what fits and move the clock to the next events, or by the timeout if none comes before."""
        with self._mutex:
            if self._uncomputed:
                self._compute()
        return super().wait(timeout_s, idle=idle)

    def _compute(self) -> None:
        launches = self.uncomputed
        with asking("the task model", f"outcomes() of {len(launches)} tasks", len(launches)):
            self.deliver(self.model.outcomes(launches))

    def update(self, uid: TaskId, *, priority: float | None = None, resources: Resources | None = None) -> None:
        """Change what a task asks for; what it will do is asked again."""
        with self._mutex:
            task = self._books.tasks.get(uid)
            super().update(uid, priority=priority, resources=resources)
            if task is not None and task.state in (TaskState.QUEUED, TaskState.HELD) and resources is not None:
                self._forget(uid)
                self._ask(task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let what there is come to its virtual end; see ``Executor``."""
        with self._mutex:
            self._close_up(cancel_futures)
        if not wait:
            return
        if self._eager:
            with self._mutex.lock:
                while self._books.tasks and self._broken is None:
                    self._news.wait()
        else:
            before = -1
            while self._books.tasks and self._books.seq != before:  # otherwise what is left hangs, or never fits
                before = self._books.seq
                self.wait()
        self._end_thread()

    def close(self) -> None:
        """Forget everything."""
        with self._mutex:
            self._closing = True
            for uid in list(self._books.tasks):
                self.cancel(uid)
        end_s = time.monotonic() + 10.0
        with self._mutex.lock:  # what is still being written to the journal
            while self._books.tasks and self._journal is not None and self._broken is None and time.monotonic() < end_s:
                self._news.wait(0.02)
        self._end_thread()

    def _accept(self, spec: TaskSpec) -> None:
        pass

    def _launch(self, task: Task) -> None:
        simulated = self._computed.pop(task.uid, None)
        if simulated is None:
            self._compute()
            simulated = self._computed.pop(task.uid)
        self._does[task.uid] = simulated
        self._launched_s[task.uid] = self._now
        if self._checkpoints is not None:
            self._ran_on[task.uid] = task.need
        self._push(task, min(simulated.duration_s, task.spec.walltime_s or math.inf))
        self._push_report(task, 0)
        self._started(task)

    def _push(self, task: Task, seconds: float) -> None:
        if seconds < math.inf:
            self._pushed += 1
            heapq.heappush(self._heap, (self._now + seconds, self._pushed, task.uid, task.attempt))

    def _push_report(self, task: Task, number: int) -> None:
        """The next thing that a running task says of itself."""
        reports = self._does[task.uid].progress
        if number < len(reports):
            self._pushed += 1
            due_s = self._launched_s[task.uid] + reports[number][0]
            heapq.heappush(self._reports, (due_s, self._pushed, task.uid, task.attempt, number))

    def _interrupted(self, task: Task, asked: bool) -> None:
        """It does not come to its end; a model with checkpoints wants to know how far it came."""
        if self._does.pop(task.uid, None) is not None and self._checkpoints is not None:
            # Not the resources that it may be going to have.
            spec = replace(task.spec, resources=self._ran_on.get(task.uid, task.spec.resources))
            self._checkpoints.stopped(Launch(spec, task.attempt), self._now - self._launched_s[task.uid], asked)

    def _halt(self, task: Task, grace_s: float) -> None:
        self._interrupted(task, True)
        self._left.pop(task.uid, None)
        self._ended(task, Ending(stopped=True))

    def _send(self, task: Task, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            self._interrupted(task, number != signal.SIGKILL)
            name = signal.Signals(number).name
            self._ended(task, Ending(failure=Failure.SIGNAL, message=f"killed by {name}"))

    def _suspend(self, task: Task, suspended: bool) -> None:
        if suspended:
            ends = [end for end, _, uid, attempt in self._heap if (uid, attempt) == (task.uid, task.attempt)]
            self._left[task.uid] = ends[0] - self._now if ends else math.inf
            self._heap = [entry for entry in self._heap if entry[2] != task.uid]
            heapq.heapify(self._heap)
        else:
            self._push(task, self._left.pop(task.uid))

    def _rest(self, timeout_s: float | None, idle: bool = False) -> bool:
        """Move the clock to whatever comes first."""
        with self._mutex:
            limit = math.inf if timeout_s is None else self._now + timeout_s
            while self._heap and not self._stands(self._heap[0]):
                heapq.heappop(self._heap)
            end = self._heap[0][0] if self._heap else math.inf
            while self._reports and not self._stands(self._reports[0]):
                heapq.heappop(self._reports)
            report = self._reports[0][0] if self._reports else math.inf
            change = self._changes[0][0] if self._changes else math.inf
            first = min(end, change, report)
            if first > limit or first == math.inf:
                self._now = self._now if limit == math.inf else limit
                return False
            self._now = max(first, self._now)
            self._change()
            while self._reports and self._reports[0][0] <= self._now:
                _, _, uid, attempt, number = heapq.heappop(self._reports)
                task = self._books.running.get(uid)
                if task is not None and task.attempt == attempt and uid in self._does:
                    if task.state is not TaskState.RUNNING:
                        continue  # what is suspended says no more
                    self._reported(task, self._does[uid].progress[number][1])
                    self._push_report(task, number + 1)
            while self._heap and self._heap[0][0] <= self._now:
                entry = heapq.heappop(self._heap)
                if self._stands(entry):
                    self._arrive(self._books.tasks[entry[2]])
            return True

    def _stands(self, entry: tuple[Any, ...]) -> bool:
        task = self._books.running.get(entry[2])
        return task is not None and task.attempt == entry[3] and entry[2] in self._does

    def _change(self) -> None:
        """Nodes go and come."""
        while self._changes and self._changes[0][0] <= self._now:
            _, node, up, paid = self._changes.pop(0)
            self._unpaid += 0 if paid else -1 if up else 1
            if up:
                self._books.pool.up(node)
                self._books.touch()
                self._pump()
                continue
            self._books.pool.down(node)
            for task in self._books.on_nodes([node]):
                self._interrupted(task, False)
                self._ended(task, Ending(failure=Failure.LOST, message=f"node {node} was lost"))

    def _arrive(self, task: Task) -> None:
        """A task comes to its end."""
        simulated, walltime_s = self._does[task.uid], task.spec.walltime_s
        late = walltime_s is not None and simulated.duration_s > walltime_s
        if late:
            self._interrupted(task, True)
        else:
            del self._does[task.uid]
        if late:
            message = f"stopped at its walltime of {walltime_s:g} s"
            self._ended(task, Ending(failure=Failure.TIMEOUT, message=message))
        elif simulated.failure is not None:
            self._ended(task, Ending(failure=simulated.failure, message=simulated.message))
        elif task.work is None:
            self._ended(task, Ending(simulated.values))
        else:
            self._ended(task, _run(task))
        self._pump()

    def _report(self, task: Task, event: Event, ending: Ending | None) -> None:
        if event.state is TaskState.QUEUED:
            self._ask(task)
        elif event.state.final:
            self._forget(task.uid)
        super()._report(task, event, ending)
        if self._eager and self._thread is None and not event.state.final:
            work = partial(self._guarded, self._run_on)
            self._thread = threading.Thread(target=work, name="rlctl-clock", daemon=True)
            self._thread.start()
        if self._eager:
            self._news.notify_all()

    def _ask(self, task: Task) -> None:
        """What this attempt will do has to be known before it starts."""
        if task.uid not in self._uncomputed and task.uid not in self._computed:
            self._uncomputed[task.uid] = self._launch_of(task)

    def _launch_of(self, task: Task) -> Launch:
        spec = task.spec
        if task.work is not None:
            spec = replace(spec, uid=task.uid, function=function_name(task.work[0]))
        elif task.need is not spec.resources:
            spec = replace(spec, resources=task.need)
        return Launch(spec, task.attempt)

    def _forget(self, uid: TaskId) -> None:
        self._launched_s.pop(uid, None)
        self._ran_on.pop(uid, None)
        if self._computed.pop(uid, None) is not None and self._checkpoints is not None:
            self._checkpoints.withdrawn(uid)
        self._uncomputed.pop(uid, None)

    def _run_on(self) -> None:
        """The thread of an eager executor."""
        while True:
            with self._mutex.lock:
                while not self._books.running or self._broken is not None:
                    if self._broken is not None or (self._closing and not self._books.tasks):
                        return
                    self._news.wait()
            if not self._rest(None):  # everything that runs, hangs: until somebody stops it
                with self._mutex.lock:
                    self._news.wait(0.05)

    def _end_thread(self) -> None:
        with self._mutex.lock:
            self._news.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _run(task: Task) -> Ending:
    assert task.work is not None
    function, arguments, keywords = task.work
    try:
        return Ending(value=function(*arguments, **keywords))
    except BaseException as error:
        return Ending(failure=Failure.EXIT, message=described(error), error=error)
