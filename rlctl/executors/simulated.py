"""The simulated executor: a virtual clock, an event heap, nodes with cores and GPUs, and a model of what tasks do."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rlctl.executors.base import Capacity
from rlctl.task import Event, Failure, Resources, TaskId, TaskResult, TaskSpec, TaskState

if TYPE_CHECKING:
    from rlctl.driver import Recorder


@dataclass(frozen=True, slots=True)
class Launch:
    """A task that is about to run."""

    spec: TaskSpec
    attempt: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a task would do.

    Attributes:
        duration_s: how long it occupies its resources, start-up included; infinite: it hangs.
        values: its result, unless it fails.
    """

    duration_s: float
    values: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""


class TaskModel(Protocol):
    """Tells what tasks do, without running them. Holds what is hidden from the campaign."""

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """One for each launch; deterministic for a seed and a sequence of launches."""


@dataclass(frozen=True, slots=True)
class DurationModel:
    """``(start_up + work) * exp(scatter N(0, 1))``, at times ``straggler_factor`` longer; see ``draw``.

    Attributes:
        start_up_s: seconds before the work begins, by number of ranks.
        scatter: standard deviation of the logarithm of the duration.
        straggler_probability, straggler_factor: the heavy tail.
        failure_probability: chance that an attempt dies, at a uniformly random moment of its life.
    """

    start_up_s: Mapping[int, float]
    scatter: float = 0.0
    straggler_probability: float = 0.0
    straggler_factor: float = 10.0
    failure_probability: float = 0.0

    def draw(self, ranks: int, work_s: float, rng: np.random.Generator) -> tuple[float, bool]:
        """Seconds that an attempt takes, and whether it dies then."""
        seconds = self.start_up_s[ranks] + work_s
        if self.scatter > 0.0:
            seconds *= math.exp(self.scatter * rng.standard_normal())
        if self.straggler_probability > 0.0 and rng.random() < self.straggler_probability:
            seconds *= self.straggler_factor
        if self.failure_probability > 0.0 and rng.random() < self.failure_probability:
            return seconds * rng.random(), True
        return seconds, False


class _Nodes:
    """Free cores and GPUs of each node."""

    def __init__(self, capacity: Capacity) -> None:
        self.cores = [capacity.cores] * capacity.nodes
        self.gpus = [float(capacity.gpus)] * capacity.nodes

    def place(self, need: Resources) -> list[int] | None:
        """Ranks on each node, nodes in order, or None if they do not all fit now."""
        left = need.ranks
        ranks = []
        for cores, gpus in zip(self.cores, self.gpus, strict=True):
            fit = cores // need.cores_per_rank
            if need.gpus_per_rank > 0.0:
                fit = min(fit, int(gpus / need.gpus_per_rank + 1e-9))
            ranks.append(min(fit, left))
            left -= ranks[-1]
        return ranks if left == 0 else None

    def take(self, need: Resources, ranks: Sequence[int], sign: int = 1) -> None:
        for node, count in enumerate(ranks):
            if count:
                self.cores[node] -= sign * count * need.cores_per_rank
                self.gpus[node] -= sign * count * need.gpus_per_rank


@dataclass(slots=True)
class _Running:
    launch: Launch
    ranks: list[int]
    started_s: float
    simulated: Simulated


class SimulatedExecutor:
    """An executor under a virtual clock; see ``rlctl.executors.base.Executor`` for the contract.

    What a task will do is asked of the model once, when the task is first needed, and delivered when the virtual clock
    reaches its end. A driver of many campaigns may ask for all of them together: ``uncomputed`` lists the launches,
    ``deliver`` takes the answers.
    """

    deterministic = True

    def __init__(self, capacity: Capacity, model: TaskModel, recorder: Recorder | None = None) -> None:
        """Make a machine of which nothing is occupied.

        Args:
            capacity: the allocation.
            model: what the tasks do.
            recorder: is told of submissions and launches, as a journal is by a real executor.
        """
        self.capacity = capacity
        self.model = model
        self._recorder = recorder
        self._occupied: dict[TaskId, set[int]] = {}  # cores by number, kept for the recorder
        self.uncomputed: list[Launch] = []
        self._now = 0.0
        self._nodes = _Nodes(capacity)
        self._queue: list[tuple[float, int, Launch]] = []  # (-priority, order, launch)
        self._computed: dict[TaskId, Simulated] = {}
        self._running: dict[TaskId, _Running] = {}
        self._heap: list[tuple[float, int, TaskId]] = []  # (end, order, uid)
        self._known: set[TaskId] = set()
        self._events: list[Event] = []
        self._order = 0

    def now(self) -> float:
        """Virtual seconds since the campaign began."""
        return self._now

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> None:
        """Queue a task. Raises ``LaunchError`` if it can never run."""
        if spec.uid in self._known:
            return
        self.capacity.check(spec)
        self._known.add(spec.uid)
        self._enqueue(Launch(spec, attempt))

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task at once."""
        running = self._running.pop(uid, None)
        if running is not None:
            self._release(running)
            self._end(running.launch, running.started_s, TaskState.CANCELED)
            return
        for entry in self._queue:
            if entry[2].spec.uid == uid:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
                self.uncomputed = [launch for launch in self.uncomputed if launch.spec.uid != uid]
                self._computed.pop(uid, None)
                self._end(entry[2], self._now, TaskState.CANCELED)
                return

    def deliver(self, simulated: Sequence[Simulated]) -> None:
        """The model's answers for ``uncomputed``, in its order."""
        for launch, answer in zip(self.uncomputed, simulated, strict=True):
            self._computed[launch.spec.uid] = answer
        self.uncomputed = []

    def wait(self, timeout_s: float | None = None) -> list[Event]:
        """Start what fits and move the clock to the next events, or by the timeout if none comes before."""
        if self.uncomputed:
            self.deliver(self.model.outcomes(self.uncomputed))
        self._start()
        while self._heap and self._heap[0][2] not in self._running:  # cancelled meanwhile
            heapq.heappop(self._heap)
        if not self._events:
            limit = math.inf if timeout_s is None else self._now + timeout_s
            end = self._heap[0][0] if self._heap else math.inf
            if end > limit:
                self._now = limit
            elif end < math.inf:
                self._now = end
                while self._heap and self._heap[0][0] == end:
                    uid = heapq.heappop(self._heap)[2]
                    running = self._running.pop(uid, None)
                    if running is not None:
                        self._release(running)
                        self._ended(running)
        events, self._events = self._events, []
        return events

    def shutdown(self) -> None:
        """Forget everything."""
        self._queue.clear()
        self._running.clear()
        self._heap.clear()

    def _enqueue(self, launch: Launch) -> None:
        self._order += 1
        heapq.heappush(self._queue, (-launch.spec.priority, self._order, launch))
        self.uncomputed.append(launch)
        if self._recorder is not None:
            data = {"uid": launch.spec.uid, "attempt": launch.attempt, "parameters": dict(launch.spec.parameters)}
            self._recorder.append("submitted", self._now, data)

    def _start(self) -> None:
        while self._queue:
            launch = self._queue[0][2]
            need = launch.spec.resources
            ranks = self._nodes.place(need)
            if ranks is None:
                return
            heapq.heappop(self._queue)
            self._nodes.take(need, ranks)
            uid = launch.spec.uid
            simulated = self._computed.pop(uid)
            self._running[uid] = _Running(launch, ranks, self._now, simulated)
            if self._recorder is not None:
                self._note_launch(self._recorder, launch, ranks)
            self._order += 1
            seconds = min(simulated.duration_s, launch.spec.walltime_s or math.inf)
            if seconds < math.inf:
                heapq.heappush(self._heap, (self._now + seconds, self._order, uid))
            self._events.append(Event(self._now, uid, TaskState.RUNNING, launch.attempt))

    def _note_launch(self, recorder: Recorder, launch: Launch, ranks: Sequence[int]) -> None:
        """Say which cores a task takes: node n has the numbers from n times the cores of a node, lowest first."""
        need, width = launch.spec.resources, self.capacity.cores
        taken = set().union(*self._occupied.values())
        cores: list[int] = []
        for node, count in enumerate(ranks):
            free = (core for core in range(node * width, (node + 1) * width) if core not in taken)
            cores += [next(free) for _ in range(count * need.cores_per_rank)]
        self._occupied[launch.spec.uid] = set(cores)
        gpus = {f"node{node}": count * need.gpus_per_rank for node, count in enumerate(ranks) if need.gpus}
        data = {"uid": launch.spec.uid, "attempt": launch.attempt, "cores": cores, "gpus": gpus}
        recorder.append("launching", self._now, data)

    def _release(self, running: _Running) -> None:
        self._occupied.pop(running.launch.spec.uid, None)
        self._nodes.take(running.launch.spec.resources, running.ranks, -1)

    def _ended(self, running: _Running) -> None:
        launch, simulated = running.launch, running.simulated
        late = launch.spec.walltime_s is not None and simulated.duration_s > launch.spec.walltime_s
        failure = Failure.TIMEOUT if late else simulated.failure
        if failure is None:
            self._end(launch, running.started_s, TaskState.DONE, simulated.values)
        elif launch.attempt <= launch.spec.retries:
            self._events.append(Event(self._now, launch.spec.uid, TaskState.QUEUED, launch.attempt + 1))
            self._enqueue(Launch(launch.spec, launch.attempt + 1))
        else:
            message = f"stopped at its walltime of {launch.spec.walltime_s:g} s" if late else simulated.message
            self._end(launch, running.started_s, TaskState.FAILED, failure=failure, message=message)

    def _end(
        self,
        launch: Launch,
        started_s: float,
        state: TaskState,
        values: Mapping[str, Any] | None = None,
        failure: Failure | None = None,
        message: str = "",
    ) -> None:
        uid, cores = launch.spec.uid, launch.spec.resources.cores
        result = TaskResult(uid, state, launch.attempt, values or {}, failure, message, started_s, self._now, cores)
        self._events.append(Event(self._now, uid, state, launch.attempt, result))
