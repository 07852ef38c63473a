"""What a backend is: it starts, stops, signals and watches attempts on one kind of machine.

A backend knows nothing of queue, journal or futures; those are the engine's (``rlctl.executors.engine.Executor``). The
engine decides what runs where, hands an ``Attempt`` to ``start``, and learns what becomes of it from ``poll``.

Threads: the engine has one thread for each backend, which calls ``poll`` again and again, without a lock, and ``close``
in the end. All other methods are called from any thread with the lock of the engine held: they must not block, and must
not call the engine. State that ``poll`` shares with them needs a lock of the backend's own. A backend with a virtual
``clock`` has no thread; the engine polls it inside ``Executor.wait``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.executors.node_share import Allocation
from rlctl.executors.pool import NodePool

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function, its arguments and its keywords, as they were given to ``Executor.submit``."""


_NOTHING: Mapping[str, Any] = {}


class Attempt(NamedTuple):
    """One attempt of a task.

    Attributes:
        key: names the attempt, ``UID.NUMBER``; no other attempt of a run has it.
        spec: what to run; its ``uid`` and ``function`` mean nothing where there is ``call``.
        need: the resources; others than in ``spec`` after ``Executor.update``.
        allocation: nodes (numbered within the backend), cores, GPUs and memory that it has for itself.
        call: a function that was given to ``Executor.submit``; None: ``spec`` says what to run.
        ran_s: seconds that it has run already, where a former controller has started it.
    """

    key: str
    uid: TaskId
    number: int
    spec: TaskSpec
    need: Resources
    allocation: Allocation
    call: Call | None = None
    ran_s: float = 0.0


class AttemptOutcome(NamedTuple):
    """How an attempt ended.

    Attributes:
        values: result of a program, or of the function that a ``TaskSpec`` names.
        failure: None: it succeeded, or was stopped.
        message: why it failed, one line.
        usage: what it used, as far as is known: ``cpu_s``, ``peak_mb``.
        stopped: it ended because it was stopped, by request or at the end of a lease, before it came to its own end.
        value, error: what a ``Call`` returned or raised.
    """

    values: Mapping[str, Any] = _NOTHING
    failure: Failure | None = None
    message: str = ""
    usage: Mapping[str, float] = _NOTHING
    stopped: bool = False
    value: Any = None
    error: BaseException | None = None


class Started(NamedTuple):
    """An attempt runs now.

    Attributes:
        details: added to its record in the journal, JSON-ready: process number, host.
    """

    key: str
    details: Mapping[str, Any] = _NOTHING


class ProgressReported(NamedTuple):
    """A running attempt has reported something of itself."""

    key: str
    data: Mapping[str, Any]


class Exited(NamedTuple):
    """All processes of an attempt have exited.

    Attributes:
        outcome: None: of an attempt among ``Recovered.running`` that was not adopted yet; it can still be adopted.
    """

    key: str
    outcome: AttemptOutcome | None


@dataclass(frozen=True, slots=True)
class NodesChanged:
    """Nodes have come or gone. What ran on lost ones is reported by ``Exited``, as ``Failure.LOST``.

    Attributes:
        down: numbers of all nodes that cannot be used now.
        unpaid: how many of these cost nothing: they have not come yet, or were given back.
        workers: workers that are connected, of backends whose pool counts them; None: it does not.
    """

    down: frozenset[int] = frozenset()
    unpaid: int = 0
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class AllocationExpires:
    """The batch job that this process itself runs in is about to end: ``Executor.wait`` raises ``AllocationEnds``."""


BackendEvent = Started | ProgressReported | Exited | NodesChanged | AllocationExpires


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a backend has found of a former controller when it was opened.

    Attributes:
        running: keys of attempts that still run.
        ended: keys of attempts whose outcome is kept until it is acknowledged.
        unattended_s: seconds for which attempts ran without a controller; the clock of the campaign skips them.
    """

    running: Collection[str] = ()
    ended: Collection[str] = ()
    unattended_s: float = 0.0


class Backend(Protocol):
    """Runs attempts on one kind of machine. Subclass it: what has a default here need not be written.

    Attributes:
        capacity: nodes, cores and GPUs that attempts may use.
        clock: seconds on a virtual clock that only ``poll`` moves; None: time is real.
        group: a number for each node; the nodes of one attempt have the same one. None: any nodes go together.
    """

    capacity: Capacity
    clock: Callable[[], float] | None = None
    group: Callable[[int], int] | None = None

    def open(self, incarnation: int) -> Recovered:
        """Take the machine; called once, before anything else, and may block.

        Args:
            incarnation: how many controllers of this run there have been; a later one supersedes an earlier one.

        Raises:
            LaunchError: the machine has less than ``capacity``, or another controller uses it.
        """
        return Recovered()

    def close(self, keep_outcomes: bool) -> None:
        """Stop all that still runs, wait until it has exited, and release the machine; may block.

        Called once, after the last ``poll``; also after ``open`` where another backend could not be opened.

        Args:
            keep_outcomes: outcomes that were not acknowledged stay for a later controller.
        """
        return

    def node_pool(self) -> NodePool:
        """The nodes as the scheduler is to see them; called once."""
        return NodePool(self.capacity)

    def nodes(self) -> NodesChanged:
        """Which nodes are there now; asked after ``open`` and ``resize``."""
        return NodesChanged()

    def check(self, spec: TaskSpec) -> None:
        """Accept a task at submission.

        Raises:
            LaunchError: it can never run here, for another reason than its size.
        """
        return

    def start(self, attempt: Attempt) -> bool:
        """Start an attempt.

        Returns:
            Whether it runs now; otherwise ``Started`` or ``Exited`` follows.

        Raises:
            Exception: it cannot be started. The attempt has failed then (``Failure.LAUNCH``); the message is that of
                the error. The future of a ``Call`` gets the error, or its ``__cause__`` if it is a ``LaunchError``.
        """
        ...

    def adopt(self, attempt: Attempt) -> bool:
        """Take over an attempt that a former controller has started, running or ended.

        ``Started`` and ``Exited`` follow as if it had been started here. Its allocation is empty where others have its
        place by now; it is stopped then.

        Returns:
            Whether it was taken over. If not (it is unknown, or was stopped before its end), it runs again.
        """
        return False

    def stop(self, key: str, grace_s: float) -> bool:
        """Stop an attempt: SIGTERM, and SIGKILL after ``grace_s``. Unknown keys, and those of ended ones, are ignored.

        Also called for keys of ``Recovered.running`` that no task has asked for.

        Returns:
            Whether it was stopped before this returned; otherwise ``Exited`` follows, when its processes have exited.
        """
        ...

    def signal(self, key: str, number: int) -> None:
        """Send a signal to every process of an attempt; unknown keys are ignored."""
        return

    def suspend(self, key: str) -> None:
        """Halt an attempt, which keeps its resources."""
        self.signal(key, signal.SIGSTOP)

    def resume(self, key: str) -> None:
        """Continue a suspended attempt."""
        self.signal(key, signal.SIGCONT)

    def acknowledge(self, key: str) -> None:
        """The outcome of a program is on disk, or not wanted: forget it. Unknown keys are ignored."""
        return

    def announce(self, attempt: Attempt) -> None:
        """An attempt waits for its place (its allocation is empty); for task models that answer many at once."""
        return

    def withdraw(self, key: str) -> None:
        """An announced attempt will not start, or will be announced anew with other resources."""
        return

    def resize(self, nodes: int) -> None:
        """Have so many nodes, those with the lowest numbers; attempts on others are stopped by the engine afterwards.

        Raises:
            LaunchError: so many cannot be had.
        """
        return

    def describe(self, allocation: Allocation) -> Mapping[str, Any]:
        """What the journal is to say of an allocation beyond cores, GPUs and nodes, JSON-ready."""
        return {}

    def poll(self, timeout_s: float | None) -> Sequence[BackendEvent]:
        """Wait until something happens, at most so long (None: until ``wake``), and return what has, in order.

        With a virtual clock: move the clock to the next event, or by ``timeout_s`` where none comes before.

        Raises:
            Exception: the backend cannot go on. The executor ends: every future fails with ``ExecutorBroken``.
        """
        ...

    def wake(self) -> None:
        """End a ``poll`` that waits, or the next one; may be called from any thread, with or without a lock."""
        return
