"""The simulated backend: a virtual clock, a heap of future events, and a model of what tasks do."""

from __future__ import annotations

import heapq
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlctl.core.errors import described
from rlctl.core.machine import Capacity, Scoring
from rlctl.core.plugin_calls import asking
from rlctl.core.records import Recorder
from rlctl.core.simulation import Checkpointing, Launch, Outage, Simulated, TaskModel
from rlctl.core.task import Event, Failure
from rlctl.executors.backend import (
    Attempt,
    AttemptOutcome,
    Backend,
    BackendEvent,
    Call,
    Exited,
    NodesChanged,
    ProgressReported,
)
from rlctl.executors.engine import Executor
from rlctl.executors.factory import PoolPlan
from rlctl.executors.futures import function_name

_NODES, _PROGRESS, _END = range(3)
"""Kinds of entries of the heap, in their order at one instant."""

_FATAL = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGINT})


@dataclass(slots=True, eq=False)
class _Run:
    """A running attempt.

    Attributes:
        entry: number of the heap entry for its end.
        reported: how many of its reports of progress have been made.
        left_s: seconds that a suspended attempt still has to run; None: it is not suspended.
        outcome: of an attempt that a signal has ended; None: the model's.
    """

    attempt: Attempt
    launch: Launch
    simulated: Simulated
    since_s: float
    end_s: float = math.inf
    entry: int = -1
    reported: int = 0
    left_s: float | None = None
    outcome: AttemptOutcome | None = None


_Entry = tuple[float, int, int, Any]
"""Of the heap: time, kind, number, and a ``_Run`` or (node, whether it comes, whether it is paid for)."""


class SimulatedBackend(Backend):
    """Runs attempts on a virtual clock that only ``poll`` moves.

    The model is asked once for each attempt, together for all that are announced, at the latest when the first of them
    starts. A function that was given to ``Executor.submit`` really runs, at its virtual end.

    Args:
        capacity: nodes, cores and GPUs.
        model: predicts what tasks do.
        outages: when nodes are down; attempts on them are lost.
    """

    def __init__(self, capacity: Capacity, model: TaskModel, outages: Sequence[Outage] = ()) -> None:
        self.capacity = capacity
        self.model = model
        self._checkpoints = model if isinstance(model, Checkpointing) else None
        self._now = 0.0
        self._uncomputed: dict[str, Launch] = {}
        self._computed: dict[str, tuple[Launch, Simulated]] = {}
        self._runs: dict[str, _Run] = {}
        self._down: set[int] = set()
        self._unpaid = 0
        changes = sorted(
            [(o.from_s, o.node, False, o.paid) for o in outages]
            + [(o.to_s, o.node, True, o.paid) for o in outages if o.to_s < math.inf]
        )
        self._heap: list[_Entry] = [(change[0], _NODES, order, change[1:]) for order, change in enumerate(changes)]
        self._order = len(changes)
        self._advance(0.0)

    def clock(self) -> float:
        """Virtual seconds since the campaign began."""
        return self._now

    @property
    def uncomputed(self) -> list[Launch]:
        """Announced attempts of which the model has not been asked yet."""
        return list(self._uncomputed.values())

    def deliver(self, simulated: Sequence[Simulated]) -> None:
        """The model's answers for ``uncomputed``, in its order."""
        for (key, launch), answer in zip(self._uncomputed.items(), simulated, strict=True):
            self._computed[key] = launch, answer
        self._uncomputed.clear()

    def compute(self) -> None:
        """Ask the model what all announced attempts would do."""
        if count := len(self._uncomputed):
            with asking("the task model", f"outcomes() of {count} tasks", count):
                self.deliver(self.model.outcomes(list(self._uncomputed.values())))

    def nodes(self) -> NodesChanged:
        """Nodes that are down now."""
        return NodesChanged(frozenset(self._down), self._unpaid)

    def announce(self, attempt: Attempt) -> None:
        """Note an attempt for the next call of the model."""
        spec, call = attempt.spec, attempt.call
        if call is not None:
            spec = replace(spec, uid=attempt.uid, function=function_name(call[0]))
        elif attempt.need is not spec.resources:
            spec = replace(spec, resources=attempt.need)
        self._uncomputed[attempt.key] = Launch(spec, attempt.number)

    def withdraw(self, key: str) -> None:
        """Forget an announced attempt; a model that keeps checkpoints learns that it does not run."""
        self._uncomputed.pop(key, None)
        computed = self._computed.pop(key, None)
        if computed is not None and self._checkpoints is not None:
            self._checkpoints.withdrawn(computed[0].spec.uid)

    def start(self, attempt: Attempt) -> bool:
        """Start an attempt; it runs at once."""
        key = attempt.key
        if key not in self._computed:
            self.compute()
        launch, simulated = self._computed.pop(key)
        run = self._runs[key] = _Run(attempt, launch, simulated, self._now)
        self._push_end(run, self._now + min(simulated.duration_s, attempt.spec.walltime_s or math.inf))
        self._push_report(run)
        return True

    def stop(self, key: str, grace_s: float) -> bool:
        """Stop a running attempt at once."""
        run = self._runs.pop(key, None)
        if run is not None and run.outcome is None:
            self._interrupted(run, True)
        return run is not None

    def signal(self, key: str, number: int) -> None:
        """End an attempt by SIGTERM, SIGKILL or SIGINT; others have no effect."""
        run = self._runs.get(key)
        if run is not None and run.outcome is None and number in _FATAL:
            self._interrupted(run, number != signal.SIGKILL)
            name = signal.Signals(number).name
            run.outcome = AttemptOutcome(failure=Failure.SIGNAL, message=f"killed by {name}")
            self._push_end(run, self._now)

    def suspend(self, key: str) -> None:
        """Halt an attempt: its remaining time stands still."""
        run = self._runs.get(key)
        if run is not None and run.outcome is None and run.left_s is None:
            run.left_s, run.entry = run.end_s - self._now, -1

    def resume(self, key: str) -> None:
        """Continue a suspended attempt."""
        run = self._runs.get(key)
        if run is not None and run.outcome is None and run.left_s is not None:
            self._push_end(run, self._now + run.left_s)
            run.left_s = None

    def poll(self, timeout_s: float | None) -> Sequence[BackendEvent]:
        """Move the clock to the next event, or by ``timeout_s`` if none comes before; see ``Backend``."""
        limit_s = math.inf if timeout_s is None else self._now + timeout_s
        events = self._advance(limit_s)
        if not events and limit_s < math.inf:
            self._now = limit_s
        return events

    def _advance(self, limit_s: float) -> list[Any]:
        """Move the clock to the next instant that has events, at most to the limit, and return these."""
        events: list[BackendEvent] = []
        heap = self._heap
        while heap and not events:
            if not self._valid(heap[0]):
                heapq.heappop(heap)
                continue
            if heap[0][0] > limit_s:
                break
            now_s = self._now = max(heap[0][0], self._now)
            while heap and heap[0][0] <= now_s:
                entry = heapq.heappop(heap)
                if entry[1] == _NODES:
                    self._change_node(entry[3], events)
                elif self._valid(entry):
                    (self._report if entry[1] == _PROGRESS else self._end)(entry[3], events)
        return events

    def _valid(self, entry: _Entry) -> bool:
        """Whether an entry of the heap still counts: its attempt has not been stopped or suspended."""
        if entry[1] == _NODES:
            return True
        run = entry[3]
        return run.attempt.key in self._runs and (entry[1] == _PROGRESS or entry[2] == run.entry)

    def _change_node(self, change: tuple[int, bool, bool], events: list[BackendEvent]) -> None:
        node, comes, paid = change
        self._unpaid += 0 if paid else -1 if comes else 1
        (self._down.discard if comes else self._down.add)(node)
        events.append(self.nodes())
        for run in [] if comes else list(self._runs.values()):
            if any(share.node == node for share in run.attempt.allocation):
                self._interrupted(run, False)
                self._exit(run, AttemptOutcome(failure=Failure.LOST, message=f"node {node} was lost"), events)

    def _report(self, run: _Run, events: list[BackendEvent]) -> None:
        if run.left_s is None:  # a suspended attempt reports no more
            events.append(ProgressReported(run.attempt.key, run.simulated.progress[run.reported][1]))
            run.reported += 1
            self._push_report(run)

    def _end(self, run: _Run, events: list[BackendEvent]) -> None:
        simulated, spec = run.simulated, run.attempt.spec
        outcome = run.outcome
        if outcome is not None:
            pass  # a signal has ended it
        elif spec.walltime_s is not None and simulated.duration_s > spec.walltime_s:
            self._interrupted(run, True)
            message = f"stopped at its walltime of {spec.walltime_s:g} s"
            outcome = AttemptOutcome(failure=Failure.TIMEOUT, message=message)
        elif simulated.failure is not None:
            outcome = AttemptOutcome(failure=simulated.failure, message=simulated.message)
        elif run.attempt.call is None:
            outcome = AttemptOutcome(simulated.values)
        else:
            outcome = _call(run.attempt.call)
        self._exit(run, outcome, events)

    def _exit(self, run: _Run, outcome: AttemptOutcome, events: list[BackendEvent]) -> None:
        del self._runs[run.attempt.key]
        events.append(Exited(run.attempt.key, outcome))

    def _interrupted(self, run: _Run, asked: bool) -> None:
        """Tell a model that keeps checkpoints how far an attempt came that does not reach its end."""
        if self._checkpoints is not None:
            self._checkpoints.stopped(run.launch, self._now - run.since_s, asked)

    def _push_end(self, run: _Run, end_s: float) -> None:
        self._order += 1
        run.end_s, run.entry = end_s, self._order
        if end_s < math.inf:
            heapq.heappush(self._heap, (end_s, _END, self._order, run))

    def _push_report(self, run: _Run) -> None:
        if run.reported < len(run.simulated.progress):
            self._order += 1
            due_s = run.since_s + run.simulated.progress[run.reported][0]
            heapq.heappush(self._heap, (due_s, _PROGRESS, self._order, run))


def _call(call: Call) -> AttemptOutcome:
    function, arguments, keywords = call
    try:
        return AttemptOutcome(value=function(*arguments, **keywords))
    except BaseException as error:
        return AttemptOutcome(failure=Failure.EXIT, message=described(error), error=error)


class SimulatedExecutor(Executor):
    """An executor on a virtual clock; see ``Executor`` for its methods.

    A driver of many campaigns may compute the tasks of all of them together: ``simulated.uncomputed`` lists the
    launches, ``simulated.deliver`` takes the answers. Otherwise ``wait`` asks the model.

    Attributes:
        simulated: the backend.
    """

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
        """Make a machine on which nothing runs yet; see ``Executor`` and ``SimulatedBackend`` for the arguments.

        Args:
            eager: a thread moves the clock whenever a task runs, for callers that wait for futures; otherwise the
                clock moves inside ``wait`` only.
            backfill: tasks may overtake one that does not fit yet; not where a policy decides what starts.
        """
        self.simulated = SimulatedBackend(capacity, model, outages)
        super().__init__([PoolPlan(self.simulated, backfill=backfill)], journal, eager=eager, scoring=scoring)

    def wait(self, timeout_s: float | None = None, *, idle: bool = False, starts: bool = True) -> list[Event]:
        """Start what fits and move the clock to the next events, or by the timeout if none comes before.

        Raises:
            Exception: the model fails.
        """
        if self.simulated.uncomputed:
            with self._lock:
                self.simulated.compute()
        return super().wait(timeout_s, idle=idle, starts=starts)
