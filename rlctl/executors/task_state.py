"""What the scheduler knows of a task, and what the end of an attempt makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlctl.core.task import Event, Failure, Resources, TaskId, TaskResult, TaskSpec, TaskState
from rlctl.executors.backend import AttemptOutcome, Call
from rlctl.executors.node_share import Allocation
from rlctl.executors.pool import NodePool

NODE_FAILURES = 5
"""A task that loses its node or worker so often is FAILED: it may be what kills them."""

WAITING = frozenset({TaskState.QUEUED, TaskState.HELD})


@dataclass(slots=True, eq=False)
class Task:
    """A task of a scheduler.

    Attributes:
        pools: those in which it can run, in the order in which they are tried.
        failures, node_failures: attempts that failed, and that were lost with their node or worker.
        stop: CANCELED or PREEMPTED, what it will be when it has stopped; None: it is not being stopped.
        hold: whether it is to be suspended whenever it runs, and held when it waits again.
        adopted: a former controller has started this attempt; ``started_s`` says when.
        ticket: number of its entry in a queue; an entry with another number was withdrawn.
        call: a function that was given to ``submit``; None: ``spec`` says what to run.
        future: a ``TaskFuture``; None: it is resolved.
        trouble: why it cannot be placed; None: it can.
    """

    uid: TaskId
    spec: TaskSpec
    pools: tuple[NodePool, ...]
    need: Resources
    priority: float
    order: int
    attempt: int = 1
    failures: int = 0
    node_failures: int = 0
    state: TaskState = TaskState.NEW
    pool: NodePool | None = None
    allocation: Allocation = ()
    started_s: float = 0.0
    adopted: bool = False
    stop: TaskState | None = None
    hold: bool = False
    ticket: int = 0
    call: Call | None = None
    future: Any = None
    trouble: str | None = None

    @property
    def key(self) -> str:
        """Names the present attempt."""
        return f"{self.uid}.{self.attempt}"  # ``attempt_key``, without a call

    def begin(self) -> bool:
        """Mark the future as running; False if the task was withdrawn before."""
        future = self.future
        if future is not None and future.done() and not future.cancelled():
            future = self.future = None  # its owner has given it a result
        first = self.attempt == 1 or (future is not None and not future.running())
        if self.stop is None and future is not None and first and not future.set_running_or_notify_cancel():
            self.stop = TaskState.CANCELED
        return self.stop is None


def next_state(task: Task, outcome: AttemptOutcome) -> TaskState:
    """What an attempt with this outcome makes of its task: a final state, PREEMPTED, or QUEUED for another attempt."""
    if outcome.stopped:  # if not by request: by a former controller, or at the end of a lease or a batch job
        return task.stop or TaskState.PREEMPTED
    if outcome.failure is None:
        return TaskState.DONE
    if outcome.failure is Failure.LOST:
        again = TaskState.PREEMPTED if task.node_failures + 1 < NODE_FAILURES else TaskState.FAILED
    else:
        again = TaskState.QUEUED if task.failures < task.spec.retries else TaskState.FAILED
    if task.stop is TaskState.CANCELED and not again.final:
        return TaskState.CANCELED  # it ended by itself before it was stopped
    return again


def event_after(task: Task, outcome: AttemptOutcome, now_s: float) -> Event:
    """The first event, without its number, that ``Scheduler.ended`` will report."""
    state, attempt = next_state(task, outcome), task.attempt
    if state.final:
        return Event(now_s, task.uid, state, attempt, result_of(task, state, outcome, now_s))
    if state is TaskState.QUEUED:
        return Event(now_s, task.uid, state, attempt + 1, failure=outcome.failure, message=outcome.message)
    return Event(now_s, task.uid, state, attempt)


def result_of(task: Task, state: TaskState, outcome: AttemptOutcome, now_s: float) -> TaskResult:
    """The result of a task that ends now in a final state."""
    failed = state is TaskState.FAILED
    began = bool(task.allocation)
    return TaskResult(
        task.uid,
        state,
        task.attempt,
        outcome.values if state is TaskState.DONE else {},
        outcome.failure if failed else None,
        outcome.message if failed else "",
        task.started_s if began else now_s,
        now_s,
        sum(share.cores.bit_count() for share in task.allocation) if began else task.need.cores,
    )
