"""The queue and the states of tasks, without clock and processes: what every executor decides in the same way.

Tasks start in order of priority, then of submission, in the first pool that has room for them. Where the first task
does not fit, it gets a reservation: the nodes on which it will fit first, as far as walltimes tell, are kept for it,
and those behind it may fill the gaps, on other nodes or where they end before (EASY backfill, Lifka 1995). A task
without a walltime never fills a reserved gap, and where no walltime tells when the first one will fit, none does. In
a pool without backfill nothing overtakes a task that could run there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskResult, TaskSpec, TaskState
from rlctl.executors.backend import AttemptOutcome
from rlctl.executors.node_share import Allocation
from rlctl.executors.pool import NodePool
from rlctl.executors.task_queue import TaskQueue
from rlctl.executors.task_state import WAITING, Task, next_state, result_of

_SUCCESS = AttemptOutcome()


@dataclass(slots=True)
class _Reservation:
    """For the first task that does not fit in a pool: these nodes, from then on."""

    task: Task
    at_s: float
    nodes: frozenset[int]


class Scheduler:
    """Tasks from their submission to their final state; every method takes the time at which it is called.

    Attributes:
        tasks: all that are not final, by uid; ``running`` are those that hold resources.
        held: number of tasks that are HELD.
        seq: number of the last event.

    Args:
        report: is called with every event, and the outcome where there is one.
        backfill: pools in which tasks may overtake one that does not fit; None: all.
    """

    def __init__(
        self,
        pools: Sequence[NodePool],
        report: Callable[[Task, Event, AttemptOutcome | None], None],
        backfill: Collection[NodePool] | None = None,
    ) -> None:
        self.pools = tuple(pools)
        self.tasks: dict[TaskId, Task] = {}
        self.running: dict[TaskId, Task] = {}
        self.held = 0
        self.seq = 0
        self._report = report
        self._backfill = frozenset(self.pools if backfill is None else backfill)
        self._queue = TaskQueue()
        self._reservations: dict[NodePool, _Reservation] = {}
        self._changed = True  # since the last pass: something became free, or something was queued
        self._order = 0

    @property
    def waiting(self) -> int:
        """Number of tasks that wait for resources; held ones do not."""
        return self._queue.waiting

    def new(self, spec: TaskSpec, pools: tuple[NodePool, ...], attempt: int = 1) -> Task:
        """A task that is not submitted yet, and can run in these pools."""
        self._order += 1
        return Task(spec.uid, spec, pools, spec.resources, spec.priority, self._order, attempt)

    def submit(self, task: Task, now_s: float) -> None:
        """Queue a task whose specification has been checked."""
        self.tasks[task.uid] = task
        self._enqueue(task, now_s)

    def adopt(self, task: Task, pool: NodePool, allocation: Allocation, now_s: float, since_s: float) -> None:
        """Add a task that has run since ``since_s``, where it runs; its allocation is occupied already."""
        task.pool, task.allocation, task.started_s, task.adopted = pool, allocation, min(since_s, now_s), True
        self.tasks[task.uid] = task
        self.running[task.uid] = task
        self.enter(task, TaskState.LAUNCHING, now_s)

    def schedule(self, now_s: float) -> list[Task]:
        """Give resources to what fits, best first; these tasks are SCHEDULED now.

        Where the rule of placement fails, the task is among them, without resources and with its ``trouble``.
        """
        if not self._changed or not self._queue.waiting:
            return []
        self._changed = False
        placed: list[Task] = []
        closed = set[NodePool]()  # nothing more starts there
        reserved: dict[NodePool, _Reservation] = {}
        full = set[tuple[int, NodePool, bool]]()  # kinds that do not fit there, beside what is reserved or at all
        nowhere = set[int]()  # kinds that do not fit at all
        settled = False  # every pool is closed, or has a reservation
        heads, at = self._queue.heads(), -1
        while (at := at + 1) < len(heads):
            _, _, heap, kind = heads[at]
            if settled and kind in nowhere:
                continue
            task: Task = heap[0][2]
            task.trouble, allocation = None, None
            try:
                hopeless = True
                for pool in task.pools:
                    if pool in closed or (kind, pool, False) in full:
                        continue
                    avoid = self._avoided(reserved[pool], task, now_s) if pool in reserved else ()
                    if avoid:
                        hopeless = False
                        if (kind, pool, True) in full:
                            continue
                    allocation = pool.take(task.need, avoid)
                    if allocation is not None:
                        task.pool = pool
                        break
                    full.add((kind, pool, bool(avoid)))
            except LaunchError as error:
                task.trouble, allocation = str(error), ()
            if allocation is None:
                if hopeless:
                    nowhere.add(kind)
                if not settled:
                    self._keep_place(task, now_s, closed, reserved, others=len(heads) > at + 1)
                    if len(closed) == len(self.pools):
                        break
                    settled = len(closed) + len(reserved) == len(self.pools)
                continue
            self._queue.take(heads, at)
            task.allocation, task.started_s, task.adopted = allocation, now_s, False
            self.running[task.uid] = task
            self.enter(task, TaskState.SCHEDULED, now_s)
            placed.append(task)
        self._reservations = reserved
        return placed

    def progress(self, task: Task, now_s: float, data: Mapping[str, Any]) -> Event:
        """The event of a running task that reports something of itself."""
        self.seq += 1
        return Event(now_s, task.uid, task.state, task.attempt, None, self.seq, data)

    def enter(
        self,
        task: Task,
        state: TaskState,
        now_s: float,
        result: TaskResult | None = None,
        outcome: AttemptOutcome | None = None,
    ) -> None:
        """Give the task a state, and report it."""
        if state is TaskState.RUNNING and task.state is TaskState.LAUNCHING and not task.adopted:
            task.started_s = now_s
        self.held += (state is TaskState.HELD) - (task.state is TaskState.HELD)
        task.state = state
        self.seq += 1
        event = Event(now_s, task.uid, state, task.attempt, result, self.seq)
        if outcome is not None and outcome.failure is not None and result is None:  # another attempt follows
            event = replace(event, failure=outcome.failure, message=outcome.message)
        self._report(task, event, outcome)

    def free(self, task: Task) -> None:
        """Give back the resources of an attempt that has exited; ``ended`` follows."""
        if self.running.pop(task.uid, None) is not None:
            if task.pool is not None:
                task.pool.release(task.allocation)
            self._changed = True

    def ended(self, task: Task, outcome: AttemptOutcome, now_s: float) -> None:
        """An attempt has exited: the task is final, or waits again."""
        self.free(task)
        state = next_state(task, outcome)
        task.stop = None
        if state.final:
            self._finish(task, state, now_s, outcome)
            return
        if state is TaskState.PREEMPTED:
            task.node_failures += outcome.failure is Failure.LOST
            self.enter(task, state, now_s)
        else:
            task.failures += 1
        task.attempt += 1
        task.pool, task.allocation = None, ()
        self._enqueue(task, now_s, outcome)
        if task.hold:
            task.hold = False
            self.hold(task.uid, now_s)

    def clear(self) -> None:
        """Forget all tasks."""
        self.tasks.clear()
        self.running.clear()
        self._queue.clear()
        self.held = 0

    def cancel(self, uid: TaskId, now_s: float) -> Task | None:
        """Cancel a waiting task; one that holds resources is returned, to be stopped, unless it is already."""
        task = self.tasks.get(uid)
        if task is None:
            return None
        if task.state in WAITING:
            if task.state is TaskState.QUEUED:
                self._withdraw(task)
            self._finish(task, TaskState.CANCELED, now_s, _SUCCESS)
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

    def unhold(self, uid: TaskId, now_s: float) -> Task | None:
        """Undo ``hold``; a suspended task is returned, to be resumed."""
        task = self.tasks.get(uid)
        if task is None:
            return None
        task.hold = False
        if task.state is TaskState.HELD:
            self._enqueue(task, now_s)
        elif task.state is TaskState.SUSPENDED and task.stop is None:
            return task
        return None

    def update(
        self, task: Task, priority: float | None, need: Resources | None, pools: tuple[NodePool, ...]
    ) -> Task | None:
        """Change what a task asks for; one that holds other resources is returned, to be stopped and queued again."""
        queued = task.state is TaskState.QUEUED
        if queued:
            self._withdraw(task)
        changed = need is not None and need != task.need
        task.priority = task.priority if priority is None else priority
        task.need, task.pools = task.need if need is None else need, pools
        if queued:
            self._push(task)
        elif changed and task.state is not TaskState.HELD and task.stop is None:
            task.stop = TaskState.PREEMPTED
            return task
        return None

    def resize(self, pool: NodePool, nodes: int) -> list[Task]:
        """Give a pool so many nodes; tasks on those that go are returned, to be stopped and queued again."""
        gone = set(pool.resize(nodes))
        self._reservations.pop(pool, None)
        self.touch()
        running = [task for task in self.running.values() if task.pool is pool and task.stop is None]
        stopped = [task for task in running if any(share.node in gone for share in task.allocation)]
        for task in stopped:
            task.stop = TaskState.PREEMPTED
        return stopped

    def touch(self) -> None:
        """Look for what fits at the next ``schedule``: nodes have come."""
        self._changed = True

    def _avoided(self, reservation: _Reservation, task: Task, now_s: float) -> Collection[int]:
        """The reserved nodes, unless the task ends before they are needed."""
        walltime_s = task.spec.walltime_s
        in_time = walltime_s is not None and now_s + walltime_s <= reservation.at_s < math.inf
        return () if in_time else reservation.nodes

    def _keep_place(
        self,
        task: Task,
        now_s: float,
        closed: set[NodePool],
        reserved: dict[NodePool, _Reservation],
        *,
        others: bool,
    ) -> None:
        """Keep those behind the first task that does not fit from delaying it."""
        closed.update(pool for pool in task.pools if pool not in self._backfill)
        possible = [pool for pool in task.pools if pool in self._backfill and pool not in reserved]
        if possible and others:  # else no place needs to be kept
            found = [(pool, r) for pool in possible if (r := self._reserve(task, pool, now_s)) is not None]
            if found:
                pool, reservation = min(found, key=lambda each: each[1].at_s)
                reserved[pool] = reservation

    def _reserve(self, task: Task, pool: NodePool, now_s: float) -> _Reservation | None:
        """Nodes for a task that does not fit, and from when on it will fit there; None if that is unknown."""
        before = self._reservations.get(pool)
        if before is not None and before.task is task and now_s < before.at_s < math.inf:
            return before
        trial = pool.copy()
        ends = sorted((_end(t), t.order, t) for t in self.running.values() if t.pool is pool)
        for end_s, _, other in ends:
            trial.release(other.allocation)
            allocation = trial.take(task.need)
            if allocation is not None:
                # Where an end is unknown the oldest come first: those that it waits for stay the same, and are fewer.
                return _Reservation(task, max(end_s, now_s), frozenset(share.node for share in allocation))
        return None  # nodes are down: a task behind it may have a reservation

    def _enqueue(self, task: Task, now_s: float, outcome: AttemptOutcome | None = None) -> None:
        self.enter(task, TaskState.QUEUED, now_s, outcome=outcome)
        self._push(task)

    def _push(self, task: Task) -> None:
        self._queue.push(task)
        self._changed = True

    def _withdraw(self, task: Task) -> None:
        self._queue.withdraw(task)
        self._changed = True

    def _finish(self, task: Task, state: TaskState, now_s: float, outcome: AttemptOutcome) -> None:
        del self.tasks[task.uid]
        self.enter(task, state, now_s, result_of(task, state, outcome, now_s), outcome)


def _end(task: Task) -> float:
    walltime_s = task.spec.walltime_s
    return math.inf if walltime_s is None else task.started_s + walltime_s
