"""Several pools in one campaign: a task goes to the one that it names, or to the one that a rule chooses.

Each pool is an executor with books, recovery and supervisor of its own. They share the run's folder and journal, the
clock and the lock, so that all of them can be waited for together and their events come in one order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity, Machine, Scoring
from rlctl.core.spec_values import asked, count, number
from rlctl.core.task import Event, Resources, TaskId, TaskSpec
from rlctl.executors.base import Executor, ExecutorStatus
from rlctl.executors.choice import Choice, FirstFree, PoolStatus
from rlctl.executors.engine import CALL, BookedExecutor, rest_s
from rlctl.executors.futures import TaskFuture
from rlctl.executors.local.processes import capped
from rlctl.executors.local.supervisor import GRACE_S
from rlctl.executors.pool import Pool
from rlctl.executors.recovery import KINDS, Past
from rlctl.executors.sharing import Clock, Common, Share

if TYPE_CHECKING:
    from rlctl.core.records import Recorder

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """A pool that is to be opened.

    Attributes:
        name: letters, digits, ``_`` and ``-``.
        nodes: how many of the allocation's nodes it has.
        kind: name of its executor; pools of one kind have different nodes of the same machine.
        open: opens it.
    """

    name: str
    nodes: int
    kind: str
    open: Callable[[Capacity, Share], BookedExecutor]


class PooledExecutor(Executor):
    """Sends tasks to executors; see ``rlctl.executors.base.Executor`` for the contract.

    A task stays in the pool that it was sent to. Nodes are numbered through, in the order of the pools, in ``status``
    and in the journal. ``resize`` takes away the nodes with the highest numbers, and adds to the last pool.

    Attributes:
        pools: the executors by name, in their order.
    """

    deterministic: ClassVar[bool] = False

    def __init__(
        self,
        capacity: Capacity,
        plans: Sequence[Plan],
        start_s: float = 0.0,
        *,
        eager: bool = False,
        past: Past | None = None,
        choice: Choice | None = None,
    ) -> None:
        """Open the pools.

        Args:
            capacity: all nodes.
            plans: the pools, which have these nodes between them.
            start_s: where the clock stands.
            eager: whether the pools start tasks as soon as they fit.
            past: what a journal says of former controllers.
            choice: where tasks go that name no pool; None: see ``FirstFree``.

        Raises:
            LaunchError: one of them cannot be had; none stays open.
        """
        self.capacity = capacity
        self._common = Common(eager)
        self._mutex = self._common.mutex
        self._clock = Clock(start_s)
        self._past = past or Past()
        self._choice = choice or FirstFree()
        self._whole = Pool(capacity)
        self._plans = {plan.name: plan for plan in plans}
        self._first_nodes: dict[str, int] = {}
        self._homes: dict[TaskId, BookedExecutor] = {}
        self._pools: dict[str, BookedExecutor] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        first, beside = 0, Counter[str]()
        for name, plan in self._plans.items():
            share = Share(name, self._common, self._clock, self._past, first, beside[plan.kind])
            self._pools[name] = plan.open(replace(self.capacity, nodes=plan.nodes), share)
            self._first_nodes[name] = first
            first += plan.nodes
            beside[plan.kind] += plan.nodes

    @property
    def pools(self) -> Mapping[str, BookedExecutor]:
        """The executors by name, in their order."""
        return MappingProxyType(self._pools)

    def now(self) -> float:
        """Seconds since the campaign began."""
        return self._clock.now()

    # Where tasks go.

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Run a function on one core of some pool; what it returns, or raises, is the future's."""
        with self._mutex:
            return self._place(CALL).submit(fn, *args, **kwargs)

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> TaskFuture:
        """Send a task to a pool; see ``Executor``.

        Raises:
            LaunchError: it can never run in any pool, or in the one that it names, or there is none of that name.
        """
        with self._mutex:
            home = self._homes.get(spec.uid)
            if home is None:
                home = self._homes[spec.uid] = self._place(spec)
        try:
            return home.submit_task(spec, attempt)
        except BaseException:
            with self._mutex:
                if not home.knows(spec.uid):
                    self._homes.pop(spec.uid, None)
            raise

    def _place(self, spec: TaskSpec) -> BookedExecutor:
        if spec.pool is not None:
            return self._named(spec.pool, f"task {spec.uid}")
        possible = self._possible(spec)
        launched = self._past.attempts.get(spec.uid)
        if launched is not None and any(pool.name == launched.pool for pool in possible):
            return self._pools[str(launched.pool)]  # it may still run there
        return self._named(self._choice.choose(spec, possible), type(self._choice).__name__)

    def _named(self, name: str, who: str) -> BookedExecutor:
        if name not in self._pools:
            raise LaunchError(f"{who} names the pool {name!r}, which is not there; known: {', '.join(self._pools)}")
        return self._pools[name]

    def _possible(self, spec: TaskSpec) -> list[PoolStatus]:
        """The pools in which a task can run."""
        possible, reasons = [], []
        for name, pool in self._pools.items():
            try:
                pool.check(spec)
            except LaunchError as error:
                reasons.append(f"{name}: {str(error).removeprefix(f'task {spec.uid}').removeprefix(':').strip()}")
                continue
            books = pool.books
            cores, free = books.pool.nodes * self.capacity.cores, books.pool.free_cores
            possible.append(PoolStatus(name, books.at_once(spec), cores, free, books.waiting_cores))
        if not possible:
            self._whole.check(spec)
            raise LaunchError(f"task {spec.uid} can run in no pool ({'; '.join(reasons)})")
        return possible

    # What is asked of one task; pools ignore those of others.

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task; see ``Executor``."""
        for pool in self._pools.values():
            pool.cancel(uid, grace_s)

    def signal(self, uid: TaskId, number: int) -> None:
        """Send a signal to every process of a running task."""
        for pool in self._pools.values():
            pool.signal(uid, number)

    def hold(self, uid: TaskId) -> None:
        """Keep a task from starting, or suspend it; see ``Executor``."""
        for pool in self._pools.values():
            pool.hold(uid)

    def release(self, uid: TaskId) -> None:
        """Undo ``hold``."""
        for pool in self._pools.values():
            pool.release(uid)

    def update(self, uid: TaskId, *, priority: float | None = None, resources: Resources | None = None) -> None:
        """Change what a task asks for, in its pool; see ``Executor``."""
        for pool in self._pools.values():
            pool.update(uid, priority=priority, resources=resources)

    # All of them.

    def resize(self, nodes: int) -> None:
        """Have so many nodes, those with the lowest numbers; more than there were are the last pool's."""
        nodes = asked("nodes", nodes, count)
        left, last = nodes, list(self._pools)[-1]
        for name, pool in self._pools.items():
            size = left if name == last else min(left, self._plans[name].nodes)
            left -= size
            if size != pool.books.pool.nodes:
                pool.resize(size)
        self._whole.resize(nodes)

    def events(self, since: int = 0) -> list[Event]:
        """Every change of state with a larger ``seq``, in whatever pool."""
        with self._mutex:
            return [event for event in self._common.log if event.seq > since]

    def status(self) -> ExecutorStatus:
        """How all of it stands."""
        with self._mutex:
            of = {name: pool.status() for name, pool in self._pools.items()}
            running = [
                replace(task, nodes={self._first_nodes[name] + node: ranks for node, ranks in task.nodes.items()})
                for name, status in of.items()
                for task in status.running
            ]
            return ExecutorStatus(
                self.now(),
                self._common.numbers.last,
                sum(status.nodes for status in of.values()),
                sum(status.waiting for status in of.values()),
                sum(status.held for status in of.values()),
                running,
                sum(status.free_cores for status in of.values()),
                sum(status.free_gpus for status in of.values()),
            )

    def attach(self, journal: Recorder) -> None:
        """From now on, write all to a journal, and go on with what is in it."""
        from rlctl.executors.event_log import Journal

        with self._mutex:
            if isinstance(journal, Journal):
                self._past = Past.read(journal.records(kinds=KINDS))
            for pool in self._pools.values():
                pool.attach(journal)

    def place_by(self, scoring: Scoring) -> None:
        """Let this say which nodes tasks go to, in each pool."""
        for pool in self._pools.values():
            pool.place_by(scoring)

    def machine(self) -> Machine:
        """Which nodes are there now, of all pools."""
        of = {name: pool.machine() for name, pool in self._pools.items()}
        down = frozenset(self._first_nodes[name] + node for name, machine in of.items() for node in machine.down)
        return Machine(sum(m.nodes for m in of.values()), down, sum(m.paid for m in of.values()))

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Start what fits in every pool, then wait for the next events; see ``Executor``."""
        timeout_s = None if timeout_s is None else asked("timeout_s", timeout_s, number)
        end_s = None if timeout_s is None else self.now() + timeout_s
        with self._mutex:
            for pool in self._pools.values():
                pool.begin_wait()
        while True:
            with self._mutex:
                reads = False
                for pool in self._pools.values():
                    pool.fail_if_broken()
                    pool.start_what_fits()
                    reads |= pool.look_at_progress()
                if self._common.untold or (self._changed() if idle else self._idle()):
                    break
            for pool in self._pools.values():
                pool.heed_the_end()
            left_s = None if end_s is None else max(end_s - self.now(), 0.0)
            self._rest(rest_s(left_s, reads), idle)
            if left_s == 0.0:
                break
        with self._mutex:
            events = list(self._common.untold)
            self._common.untold.clear()
            for pool in self._pools.values():
                pool.note_machine()
        return events

    def _changed(self) -> bool:
        return any(pool.machine_changed for pool in self._pools.values())

    def _idle(self) -> bool:
        return all(pool.idle for pool in self._pools.values())

    def _rest(self, timeout_s: float | None, idle: bool) -> None:
        with self._mutex.lock:
            broken = any(pool.broken for pool in self._pools.values())
            if not self._common.untold and not broken and not (self._changed() if idle else self._idle()):
                self._common.news.wait(capped(timeout_s))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As ``concurrent.futures``; see ``Executor``."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for pool in self._pools.values():
                pool.shutdown()

    def close(self) -> None:
        """Stop everything that still runs, in all pools at one time, and let go of all; may be called twice."""
        with self._mutex:
            for pool in self._pools.values():
                for uid in list(pool.books.tasks):
                    pool.cancel(uid, GRACE_S)
        with ExitStack() as stack:
            for pool in self._pools.values():
                stack.callback(pool.close)
