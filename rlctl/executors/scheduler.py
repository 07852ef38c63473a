"""The queue and the states of tasks, without clock and processes: what every executor decides in the same way.

Tasks start in order of priority, then of submission. Where the first of them does not fit, it gets a reservation: the
nodes on which it will fit first, as far as walltimes tell, are kept for it, and those behind it may fill the gaps, on
other nodes or where they end before (EASY backfill, Lifka 1995). What has no walltime never fills a reserved gap, and
where no walltime tells when it will fit, nothing does.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskResult, TaskSpec, TaskState
from rlctl.executors.naming import attempt_key
from rlctl.executors.pool import Placement, Pool
from rlctl.executors.sharing import Numbers

LOSSES = 5
"""A task whose machine or worker goes away so often is FAILED: it may be what kills them."""

TRIED = 100
"""Behind so many waiting tasks nobody finds out whether another one would start at once."""

WAITING = frozenset({TaskState.QUEUED, TaskState.HELD})


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended by itself.

    Attributes:
        usage: what it used, as far as is known: ``cpu_s``, ``peak_mb``.
        stopped: whether it was stopped, as asked for; otherwise it came to its end before that.
        value, error: what a function that was submitted as such returned or raised.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False
    value: Any = None
    error: BaseException | None = None


ENDED_WELL = Ending()


@dataclass(slots=True, eq=False)
class Task:
    """A task in the books of a scheduler.

    Attributes:
        failures, losses: attempts that failed, and that were lost with their machine.
        stop: CANCELED or PREEMPTED, what it will be when it has stopped; None: it is not being stopped.
        hold: whether it is to be suspended whenever it runs, and held when it waits again.
        adopted: this attempt was started by a former controller; ``started_s`` tells when.
        ticket: number of its entry in a queue; an entry with another number has been withdrawn.
        work: function, arguments and keywords of a call that was given as such; None: ``spec`` says what to run.
        future: who waits for it.
        trouble: why it cannot be given a place; None: it can.
    """

    uid: TaskId
    spec: TaskSpec
    need: Resources
    priority: float
    order: int
    attempt: int = 1
    failures: int = 0
    losses: int = 0
    state: TaskState = TaskState.NEW
    placement: Placement = ()
    queued_s: float = 0.0
    started_s: float = 0.0
    adopted: bool = False
    stop: TaskState | None = None
    hold: bool = False
    ticket: int = 0
    work: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None
    future: Any = None
    trouble: str | None = None

    @property
    def key(self) -> str:
        """By which this attempt is known to whoever runs it."""
        return attempt_key(self.uid, self.attempt)


@dataclass(slots=True)
class _Reservation:
    """For the first task that does not fit: these nodes, from then on."""

    task: Task
    at_s: float
    nodes: frozenset[int]


_Entry = tuple[float, int, Task, int]
"""What a queue is sorted by, the task, and its ticket."""

_Queue = list[_Entry]
"""A heap of tasks that fit, or do not fit, alike: the same resources, and walltimes within a factor of two."""


def _stands(entry: _Entry) -> bool:
    return entry[2].ticket == entry[3]


def _length(task: Task) -> int | None:
    """The same for walltimes within a factor of two."""
    walltime_s = task.spec.walltime_s
    return None if walltime_s is None else math.frexp(walltime_s)[1]


class Scheduler:
    """Tasks from their submission to their final state; every method takes the time at which it is called.

    Attributes:
        tasks: all that are not final, by uid.
        held: number of tasks that are HELD.

    Args:
        pool: the books of the machine.
        report: is told of every event, and of the ending where there is one.
        backfill: whether tasks may overtake one that does not fit.
        numbers: of events; None: its own.
    """

    def __init__(
        self,
        pool: Pool,
        report: Callable[[Task, Event, Ending | None], None],
        backfill: bool = True,
        numbers: Numbers | None = None,
    ) -> None:
        self.pool = pool
        self.tasks: dict[TaskId, Task] = {}
        self.backfill = backfill
        self.held = 0
        self._report = report
        self._queues: dict[Resources, dict[int | None, _Queue]] = {}
        self._waiting = 0
        self._waiting_cores = 0
        self._withdrawn = 0  # entries that do not stand any more
        self._tickets = 0
        self._running: dict[TaskId, Task] = {}
        self._reservation: _Reservation | None = None
        self._changed = True  # since the last pass: something became free, or something was queued
        self._possible: set[Resources] = set()
        self._numbers = numbers or Numbers()
        self._order = 0

    @property
    def seq(self) -> int:
        """Number of the last event."""
        return self._numbers.last

    @property
    def waiting(self) -> int:
        """Tasks that wait for resources; held ones do not."""
        return self._waiting

    @property
    def waiting_cores(self) -> int:
        """Cores that these ask for."""
        return self._waiting_cores

    @property
    def running(self) -> Mapping[TaskId, Task]:
        """Tasks that hold resources."""
        return self._running

    def check(self, spec: TaskSpec) -> None:
        """Refuse what can never run.

        Raises:
            LaunchError: it would not fit even if nothing else ran.
        """
        if spec.resources not in self._possible:
            self.pool.check(spec)
            self._possible.add(spec.resources)

    def at_once(self, spec: TaskSpec) -> bool:
        """Whether there is room for a task now, besides all that wait."""
        if self._waiting > TRIED or self._waiting_cores + spec.resources.cores > self.pool.free_cores:
            return False
        books = self.pool.copy()
        waiting = sorted((-task.priority, task.order, task.need) for task in self.queued())
        try:
            return all(books.take(need) is not None for *_, need in [*waiting, (0.0, 0, spec.resources)])
        except LaunchError:  # the rule of placement fails, which is told where it is asked in earnest
            return False

    def new(self, spec: TaskSpec, attempt: int = 1) -> Task:
        """A task of which nobody knows yet."""
        self._order += 1
        return Task(spec.uid, spec, spec.resources, spec.priority, self._order, attempt)

    def submit(self, task: Task, now_s: float) -> None:
        """Queue a task whose specification has been checked."""
        self.tasks[task.uid] = task
        self._enqueue(task, now_s)

    def adopt(self, task: Task, placement: Placement, now_s: float, since_s: float) -> bool:
        """Take in a task that has run since ``since_s``, where it runs; False if its place is not free."""
        if not self.pool.occupy(placement):
            return False
        task.placement, task.started_s, task.adopted = placement, min(since_s, now_s), True
        self.tasks[task.uid] = task
        self._running[task.uid] = task
        self.enter(task, TaskState.LAUNCHING, now_s)
        return True

    def schedule(self, now_s: float) -> list[Task]:
        """Give resources to what fits, best first; these are SCHEDULED now.

        Where the rule of placement fails, the task is among them, without resources and with its ``trouble``.
        """
        if not self._waiting or not self._changed:
            return []
        self._changed = False
        placed: list[Task] = []
        reserved: _Reservation | None = None
        nowhere, not_beside = set[int](), set[int]()  # what does not fit anywhere, or not beside what is reserved
        heads = self._heads()
        while heads:
            queue, need = heads[0][2:]
            task = queue[0][2]
            avoid: Collection[int] = ()
            if reserved is not None:
                walltime_s = task.spec.walltime_s
                if walltime_s is None or not now_s + walltime_s <= reserved.at_s < math.inf:
                    avoid = reserved.nodes
            known = need in nowhere or (avoid and need in not_beside)
            try:
                task.trouble, placement = None, None if known else self.pool.take(task.need, avoid)
                if placement is None:
                    if self.backfill and reserved is None and len(heads) > 1:  # else none needs a place kept
                        reserved = self._reserve(task, now_s)
                    heapq.heappop(heads)
                    if not self.backfill:
                        break
                    (not_beside if avoid else nowhere).add(need)
                    continue
            except LaunchError as error:
                task.trouble, placement = str(error), ()
            heapq.heappop(queue)
            if self._waits(queue):
                heapq.heapreplace(heads, (*queue[0][:2], queue, need))
            else:
                heapq.heappop(heads)
            self._waiting -= 1
            self._waiting_cores -= task.need.cores
            task.placement = placement
            task.started_s, task.adopted = now_s, False
            self._running[task.uid] = task
            self.enter(task, TaskState.SCHEDULED, now_s)
            placed.append(task)
        if reserved is None:
            self._reservation = None
        return placed

    def event(self, task: Task, now_s: float, progress: Mapping[str, Any]) -> Event:
        """What a running task reports of itself."""
        self._numbers.last += 1
        return Event(now_s, task.uid, task.state, task.attempt, None, self._numbers.last, progress)

    def enter(
        self,
        task: Task,
        state: TaskState,
        now_s: float,
        result: TaskResult | None = None,
        ending: Ending | None = None,
    ) -> None:
        """The task has this state now; says so."""
        if state is TaskState.RUNNING and task.state is TaskState.LAUNCHING and not task.adopted:
            task.started_s = now_s
        self.held += (state is TaskState.HELD) - (task.state is TaskState.HELD)
        task.state = state
        self._numbers.last += 1
        event = Event(now_s, task.uid, state, task.attempt, result, self._numbers.last)
        if ending is not None and ending.failure is not None and result is None:  # another attempt follows
            event = replace(event, failure=ending.failure, message=ending.message)
        self._report(task, event, ending)

    def free(self, task: Task) -> None:
        """Nothing of an attempt is alive any more: others may have what it held. ``ended`` follows, or has been."""
        if self._running.pop(task.uid, None) is not None:
            self.pool.give(task.placement)
            self._changed = True

    def verdict(self, task: Task, ending: Ending) -> TaskState:
        """What an attempt that ends so makes of its task: a final state, PREEMPTED, or QUEUED for another attempt."""
        if ending.stopped:  # without anybody asking for it here: by a former controller, or at the end of a lease
            return task.stop or TaskState.PREEMPTED
        if ending.failure is None:
            return TaskState.DONE
        if ending.failure is Failure.LOST:
            again = TaskState.PREEMPTED if task.losses + 1 < LOSSES else TaskState.FAILED
        else:
            again = TaskState.QUEUED if task.failures < task.spec.retries else TaskState.FAILED
        if task.stop is TaskState.CANCELED and not again.final:
            return TaskState.CANCELED  # it ended by itself before it could be stopped
        return again

    def ended(self, task: Task, ending: Ending, now_s: float) -> None:
        """Nothing of an attempt is alive any more: the task is final, or waits again."""
        self.free(task)
        state = self.verdict(task, ending)
        task.stop = None
        if state.final:
            self._finish(task, state, now_s, ending)
            return
        if state is TaskState.PREEMPTED:
            task.losses += ending.failure is Failure.LOST
            self.enter(task, state, now_s)
        else:
            task.failures += 1
        task.attempt += 1
        task.placement = ()
        self._enqueue(task, now_s, ending)
        if task.hold:
            task.hold = False
            self.hold(task.uid, now_s)

    def forget(self) -> None:
        """Nothing is known of any task any more: all has been let go of."""
        for books in (self.tasks, self._running, self._queues):
            books.clear()
        self.held = self._waiting = self._waiting_cores = self._withdrawn = 0

    def cancel(self, uid: TaskId, now_s: float) -> Task | None:
        """Cancel what waits; a task that holds resources is returned, to be stopped, unless it is already."""
        task = self.tasks.get(uid)
        if task is None:
            return None
        if task.state in WAITING:
            if task.state is TaskState.QUEUED:
                self._withdraw(task)
            self._finish(task, TaskState.CANCELED, now_s, ENDED_WELL)
            return None
        stopping, task.stop = task.stop, TaskState.CANCELED
        return task if stopping is None else None

    def hold(self, uid: TaskId, now_s: float) -> Task | None:
        """Keep a waiting task from starting; a running one is returned, to be suspended."""
        task = self.tasks.get(uid)
        if task is None:
            return None
        if task.state is TaskState.QUEUED:
            self._withdraw(task)
            self.enter(task, TaskState.HELD, now_s)
        elif task.state is not TaskState.HELD:
            task.hold = True
        return task if task.state is TaskState.RUNNING and task.stop is None else None

    def release(self, uid: TaskId, now_s: float) -> Task | None:
        """The opposite: a suspended task is returned, to be continued."""
        task = self.tasks.get(uid)
        if task is None:
            return None
        task.hold = False
        if task.state is TaskState.HELD:
            self._enqueue(task, now_s)
        elif task.state is TaskState.SUSPENDED and task.stop is None:
            return task
        return None

    def update(self, uid: TaskId, now_s: float, priority: float | None, need: Resources | None) -> Task | None:
        """Change what a task asks for; one that holds other resources is returned, to be stopped and queued again.

        Raises:
            LaunchError: it can never run with these resources; nothing is changed.
        """
        task = self.tasks.get(uid)
        if task is None:
            return None
        if need is not None:
            self.check(replace(task.spec, resources=need))
        queued = task.state is TaskState.QUEUED
        if queued:
            self._withdraw(task)
        task.priority = task.priority if priority is None else priority
        changed = need is not None and need != task.need
        task.need = task.need if need is None else need
        if queued:
            self._push(task)
        elif changed and task.state is not TaskState.HELD:
            return self.preempt(task)
        return None

    def preempt(self, task: Task) -> Task | None:
        """Have a task that holds resources stopped and queued again; None if it is being stopped already."""
        if task.stop is not None:
            return None
        task.stop = TaskState.PREEMPTED
        return task

    def resize(self, nodes: int) -> list[Task]:
        """Have so many nodes; tasks on those that go are returned, to be stopped and queued again."""
        gone = set(self.pool.resize(nodes))
        self._changed, self._reservation = True, None
        self._possible.clear()
        return [task for task in self.on_nodes(gone) if self.preempt(task)]

    def on_nodes(self, nodes: Collection[int]) -> list[Task]:
        """Tasks that hold something of these nodes."""
        return [t for t in self._running.values() if any(part.node in nodes for part in t.placement)]

    def queued(self) -> Iterator[Task]:
        """Tasks that wait, in no particular order."""
        return (e[2] for queues in self._queues.values() for queue in queues.values() for e in queue if _stands(e))

    def touch(self) -> None:
        """Something outside may have changed what fits: look again."""
        self._changed = True

    def _heads(self) -> list[tuple[float, int, _Queue, int]]:
        """A heap of the queues by their best task, with a number for what they ask for; empty ones are let go of."""
        heads, empty = [], []
        for need, queues in self._queues.items():
            number = id(need)
            for length, queue in queues.items():
                if self._waits(queue) if self._withdrawn else queue:
                    priority, order = queue[0][:2]
                    heads.append((priority, order, queue, number))
                else:
                    empty.append((need, length))
        for need, length in empty:
            del self._queues[need][length]
            if not self._queues[need]:
                del self._queues[need]
        heapq.heapify(heads)
        return heads

    def _waits(self, queue: _Queue) -> bool:
        """Whether anybody waits in this queue; the first entry is of a task that does."""
        while self._withdrawn and queue and not _stands(queue[0]):
            heapq.heappop(queue)
            self._withdrawn -= 1
        return bool(queue)

    def _reserve(self, task: Task, now_s: float) -> _Reservation | None:
        """Nodes for the first task that does not fit, and from when on it will fit there; None if nothing tells."""
        held = self._reservation
        if held is not None and held.task is task and now_s < held.at_s < math.inf:
            return held
        books = self.pool.copy()
        for end_s, _, other in sorted((self._end(t), t.order, t) for t in self._running.values()):
            books.give(other.placement)
            placement = books.take(task.need)
            if placement is not None:
                # Where an end is unknown the oldest come first: those that it waits for stay the same, and are fewer.
                self._reservation = _Reservation(task, max(end_s, now_s), frozenset(part.node for part in placement))
                return self._reservation
        return None  # nodes are down: whoever is behind it may have a reservation

    def _end(self, task: Task) -> float:
        walltime_s = task.spec.walltime_s
        return math.inf if walltime_s is None else task.started_s + walltime_s

    def _enqueue(self, task: Task, now_s: float, ending: Ending | None = None) -> None:
        task.queued_s = now_s
        self.enter(task, TaskState.QUEUED, now_s, ending=ending)
        self._push(task)

    def _push(self, task: Task) -> None:
        queue = self._queues.setdefault(task.need, {}).setdefault(_length(task), [])
        self._tickets += 1
        task.ticket = self._tickets
        heapq.heappush(queue, (-task.priority, task.order, task, task.ticket))
        self._waiting += 1
        self._waiting_cores += task.need.cores
        self._changed = True

    def _withdraw(self, task: Task) -> None:
        """Its entry stays where it is until it comes first, or until most entries are such."""
        task.ticket = 0
        self._waiting -= 1
        self._waiting_cores -= task.need.cores
        self._withdrawn += 1
        self._changed = True
        if self._withdrawn > self._waiting:
            for queues in self._queues.values():
                for queue in queues.values():
                    queue[:] = filter(_stands, queue)
                    heapq.heapify(queue)
            self._withdrawn = 0

    def _finish(self, task: Task, state: TaskState, now_s: float, ending: Ending) -> None:
        failed = state is TaskState.FAILED
        values = ending.values if state is TaskState.DONE else {}
        began = bool(task.placement)
        result = TaskResult(
            task.uid,
            state,
            task.attempt,
            values,
            ending.failure if failed else None,
            ending.message if failed else "",
            task.started_s if began else now_s,
            now_s,
            sum(part.cores.bit_count() for part in task.placement) if began else task.need.cores,
        )
        del self.tasks[task.uid]
        self.enter(task, state, now_s, result, ending)
