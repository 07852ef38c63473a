"""Executors: what runs tasks and reports their events, on real machines or under a virtual clock."""

from __future__ import annotations

import concurrent.futures
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from rlctl.core.machine import Capacity, Machine
from rlctl.core.task import Event, Resources, TaskId, TaskSpec, TaskState

if TYPE_CHECKING:
    from rlctl.core.machine import Scoring
    from rlctl.core.records import Recorder
    from rlctl.core.runner import TaskRunner
    from rlctl.executors.event_log import Journal
    from rlctl.executors.futures import TaskFuture

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that holds resources now.

    Attributes:
        nodes: ranks by number of node.
        since_s: on the executor's clock.
    """

    uid: TaskId
    attempt: int
    state: TaskState
    resources: Resources
    nodes: Mapping[int, int]
    since_s: float


@dataclass(frozen=True, slots=True)
class ExecutorStatus:
    """How an executor stands.

    Attributes:
        seq: number of the last event.
        waiting: tasks that wait for resources.
        held: tasks that wait for their release.
        free_cores: over all nodes.
        free_gpus: likewise.
    """

    time_s: float
    seq: int
    nodes: int
    waiting: int
    held: int
    running: Sequence[RunningTask] = field(default_factory=tuple)
    free_cores: int = 0
    free_gpus: float = 0.0


class Executor(concurrent.futures.Executor):
    """Runs tasks within a capacity; a ``concurrent.futures.Executor`` with resources, states and control.

    ``submit`` and ``map`` take functions, for any library that wants an executor. ``submit_task`` takes what campaigns
    have: programs and named functions with resources. An executor that was opened for a campaign starts tasks only
    inside ``wait``, so that all decisions due at one instant are answered before any of them takes a core; otherwise
    tasks start as soon as they fit. Highest priority first, then in order of submission; where the first does not fit,
    others fill the gaps without delaying it.

    All methods may be called from any thread. Ended and unknown tasks are ignored where a uid is given.
    """

    capacity: Capacity
    deterministic: ClassVar[bool]

    @abstractmethod
    def now(self) -> float:
        """Seconds since the campaign began (virtual or real, a resumed run goes on where it stood)."""

    @abstractmethod
    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[_T]:
        """Run a function on one core; what it returns, or raises, is the future's."""

    def map(
        self, fn: Callable[..., _T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[_T]:
        """As ``concurrent.futures.Executor.map``; with ``chunksize`` so many items go to a worker at a time."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = super().map(_Chunk(fn), _chunks(zip(*iterables, strict=False), chunksize), timeout=timeout)
        return itertools.chain.from_iterable(chunks)

    @abstractmethod
    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> TaskFuture:
        """Queue a task. A uid that is already known is ignored, and its future returned.

        Args:
            attempt: number of its first attempt. One that a former controller has left is gone on with, where it is
                still there.

        Raises:
            LaunchError: it can never run here; the message says why.
        """

    def submit_tasks(self, specs: Iterable[TaskSpec]) -> list[TaskFuture]:
        """Queue many tasks."""
        return [self.submit_task(spec) for spec in specs]

    @abstractmethod
    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task: SIGTERM, and SIGKILL after ``grace_s``. It is CANCELED when it is confirmed dead."""

    @abstractmethod
    def signal(self, uid: TaskId, number: int) -> None:
        """Send a signal to every process of a running task."""

    @abstractmethod
    def hold(self, uid: TaskId) -> None:
        """Keep a waiting task from starting (HELD); suspend a running one (SUSPENDED), which keeps its resources.

        One that is being started is suspended as soon as it runs. One that has to run again is held until then.
        """

    @abstractmethod
    def release(self, uid: TaskId) -> None:
        """Undo ``hold``."""

    @abstractmethod
    def update(self, uid: TaskId, *, priority: float | None = None, resources: Resources | None = None) -> None:
        """Change what a task asks for. A running one with other resources is stopped (PREEMPTED) and queued again.

        Raises:
            LaunchError: it can never run with these resources; nothing is changed.
        """

    @abstractmethod
    def resize(self, nodes: int) -> None:
        """Have so many nodes from now on. Tasks on those that go are stopped (PREEMPTED) and queued again."""

    @abstractmethod
    def events(self, since: int = 0) -> list[Event]:
        """Every change of state with a larger ``seq``; only the last 65,536 are kept."""

    @abstractmethod
    def status(self) -> ExecutorStatus:
        """How it stands."""

    @abstractmethod
    def attach(self, journal: Recorder) -> None:
        """From now on, write tasks, launches and results to a journal before they take effect.

        Tasks that the journal knows as ended are not run again: ``submit_task`` returns their result.
        """

    @abstractmethod
    def place_by(self, scoring: Scoring) -> None:
        """From now on, let this say which nodes tasks go to."""

    @abstractmethod
    def machine(self) -> Machine:
        """Which nodes are there now."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Start what fits, then wait for the next events of tasks and return them in order.

        These are starts, ends, suspensions, preemptions, repeated attempts, and progress. Returns an empty list when
        the timeout passes, or at once when nothing is queued or running.

        Args:
            idle: wait also where nothing is queued or running, but return when nodes come or go.
        """

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As ``concurrent.futures``: take no more tasks; let those there are come to their end, then let go of all.

        What is held or suspended is released: nobody may be left to do so.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop everything that still runs, confirm it, and let go of all; may be called twice."""


class _Chunk:
    """Calls a function for each item of a chunk; at module level, so that it can be pickled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, items: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [self.function(*item) for item in items]


def _chunks(items: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


class ExecutorFactory(Protocol):
    """What a package registers under the entry point group ``rlctl.executors``: makes executors of one kind.

    It is called as ``Factory(options)``, with the mapping ``executor.options`` of the configuration, and raises
    ``ConfigError`` for options that it does not know or cannot use. If there are paths among them, ``Factory.portable``
    takes the options and a function from a path as it is written to where it is, and returns them with absolute paths.

    It may have a method ``check_programs(specs)`` that raises ``LaunchError`` where what it describes, or tasks such as
    these name, cannot be started, and returns lines on what can only be known elsewhere; ``rlctl check`` asks it.

    One whose executor can be a pool among others has an ``open`` that takes ``share`` too; see
    ``rlctl.executors.pools_entry.SharingFactory``.
    """

    def check(self, capacity: Capacity) -> None:
        """Refuse what cannot be had, before a run folder is made.

        Raises:
            LaunchError: there is less than ``capacity``.
        """

    def open(self, capacity: Capacity, workdir: Path, journal: Journal, start_s: float) -> TaskRunner:
        """Take the allocation.

        Args:
            capacity: what to use of it.
            workdir: working directory of the tasks.
            journal: where ``submitted``, ``launching`` and ``started`` are written before they are acted upon, and
                what former controllers have written.
            start_s: where the clock stands; a resumed campaign goes on where it stood.
        """
