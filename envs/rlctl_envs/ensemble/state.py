"""State of an ensemble as far as its users know it: tasks, machine and clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.machine import Capacity, Machine, NodeGroup, Scoring
from rlctl.core.task import Resources
from rlctl.executors.pool import NodePool
from rlctl_envs.ensemble.active_task import ORDERS, ActiveTask, TaskPhase
from rlctl_envs.ensemble.job_queue import JobQueue
from rlctl_envs.ensemble.job_request import GpuUse, JobRequest, TaskShape
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.scaling_estimate import ScalingEstimate

Alike = tuple[int, tuple[TaskShape, ...], float]
"""Kind, shapes and memory."""

TrueDuration = Callable[[int, TaskShape], float]
"""Seconds that a task really takes on a shape, from its beginning."""


class NodeGroupState:
    """Equal nodes, and what is free on those that are present.

    Attributes:
        nodes: how many are there.
    """

    def __init__(self, kind: NodeGroup) -> None:
        self.kind = kind
        self.nodes = kind.nodes
        self.free_cores, self.free_gpus = kind.nodes * kind.cores, kind.nodes * kind.gpus


class EnsembleState:
    """Tasks, machine and clock.

    Attributes:
        waiting: tasks that can start, by number.
        alike: the same, those together that scale alike and fit alike; there may be thousands of tasks, but few kinds.
        blocked: tasks that wait for others to end, by number.
        running: tasks that run, by number, oldest first.
        ended: tasks in a final state, in order of their ends.
        tasks: all that have arrived, by number.
        counts: ended tasks, by state.
        reported: the running task that has just reported how far it is; None: it was something else that happened.
        scalings: what is known of each kind.
        groups: the nodes.
        total_cores, total_gpus: of the nodes that are present.
        free_cores, free_gpus: of these, not taken.
        may_wait: whether anything will happen if nothing is started.
        truth: what tasks really take; None: hidden.
        waiting_work_s: estimated work of all that wait.
        queue: the waiting jobs as columns, if they are rigid; None: they are not.
        committed: the rigid job that was chosen as the next one and does not fit yet; None: there is none.
        names_next: whether a decision names the job that starts next, whether it fits or not.
        busy_ranks, promised_rank_s: ranks of running tasks, and the sum of these times their tasks' expected ends.
    """

    def __init__(
        self,
        options: EnsembleOptions,
        capacity: Capacity,
        truth: TrueDuration | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        self.options = options
        self.capacity = capacity
        self.now_s = 0.0
        self.waiting: dict[int, ActiveTask] = {}
        self.alike: dict[Alike, dict[int, ActiveTask]] = {}
        self.blocked: dict[int, ActiveTask] = {}
        self.running: dict[int, ActiveTask] = {}
        self.ended: list[ActiveTask] = []
        self.tasks: dict[int, ActiveTask] = {}
        self.counts = dict.fromkeys((TaskPhase.DONE, TaskPhase.FAILED, TaskPhase.STOPPED), 0)
        self.reported: ActiveTask | None = None
        self.scalings: dict[int, ScalingEstimate] = {}
        self.pool = NodePool(capacity, scoring)
        self.groups = [NodeGroupState(kind) for kind in capacity.kinds]
        self._group_of = [group for group in self.groups for _ in range(group.kind.nodes)]
        self.total_cores, self.total_gpus = capacity.total_cores, capacity.total_gpus
        self.free_cores, self.free_gpus = self.total_cores, self.total_gpus
        self.work_log = 0.0
        self.waiting_work_s = self.promised_rank_s = 0.0
        self.busy_ranks = 0
        self.may_wait = False
        self.truth = truth
        self.queue = JobQueue() if options.rigid is not None else None
        self.committed: ActiveTask | None = None
        self.names_next = options.rigid in ("next", "next_backfilled")
        self._start_up_s: dict[int, float] = {}
        self._rooms: dict[tuple[bool, int | None], int] = {}
        cores = max(1.0, capacity.total_cores / capacity.nodes)
        gpus = max((group.gpus for group in capacity.kinds), default=0)
        self._node_of_core, self._node_of_gpu = 1.0 / cores, max(1.0 / gpus if gpus else 0.0, 1.0 / cores)

    def __repr__(self) -> str:
        waiting, blocked, running = sorted(self.waiting), sorted(self.blocked), sorted(self.running)
        tasks = f"waiting {waiting}, blocked {blocked}, running {running}, {len(self.ended)} ended"
        return f"<ensemble at {self.now_s:g} s: {tasks}, {self.free_cores} cores free>"

    # What rules ask.

    @property
    def time_left_s(self) -> float:
        """Seconds until the end of the allocation."""
        return self.options.allocation_s - self.now_s

    @property
    def unit_s(self) -> float:
        """Geometric mean of the estimates of all tasks that have arrived: what times are compared with."""
        return math.exp(self.work_log / len(self.tasks)) if self.tasks else 1.0

    def order(self, name: str, task: ActiveTask) -> float:
        """A task's score by one of ``active_task.ORDERS``; the highest starts first."""
        return ORDERS[name](task, self.now_s)

    def efficiency(self, task: ActiveTask, shape: TaskShape) -> float:
        """Estimated parallel efficiency of a task on a shape, up to 1."""
        return 1.0 / self.scalings[task.job.kind].loss(shape.ranks)

    def true_efficiency(self, task: ActiveTask, shape: TaskShape) -> float:
        """True parallel efficiency, for comparison only; ValueError if it is hidden."""
        if self.truth is None:
            raise ValueError("only a twin whose options say 'clairvoyant: true' knows how tasks really scale")
        number = task.job.number
        return self.truth(number, TaskShape(1, shape.gpu)) / (self.truth(number, shape) * shape.ranks)

    def seconds(self, task: ActiveTask, shape: TaskShape) -> float:
        """Estimated seconds for the rest of a task on this shape, start-up included."""
        return self._seconds(task, shape, 1.0 - self.believed(task))

    def whole_seconds(self, task: ActiveTask, shape: TaskShape) -> float:
        """Estimated seconds for all of a task on this shape, start-up included."""
        return self._seconds(task, shape, 1.0)

    def believed(self, task: ActiveTask) -> float:
        """The share of its work that a task has probably done: as its last report says, or as time has passed."""
        if task.status is not TaskPhase.RUNNING or task.starts == 0:
            return task.done
        if task.reports:
            return max(task.reports[-1].fraction, task.begun)
        passed = (self.now_s - task.started_s) / max(task.expected_s - task.started_s, 1e-9)
        return max(task.begun, min(task.begun + (1.0 - task.begun) * min(max(passed, 0.0), 1.0), 0.95))

    def fits(self, task: ActiveTask, shape: TaskShape) -> bool:
        """Whether a task can be started on a shape now."""
        if shape.ranks > self.free_cores or (shape.gpu and shape.ranks > self.free_gpus):
            return False
        if task.job.memory_mb <= 0.0:
            if not shape.gpu:
                return True
            key: tuple[bool, int | None] = (True, None)
        else:
            key = (shape.gpu, task.job.need(shape).memory_per_rank_mb)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = sum(self.pool.room(Resources(1, 1, float(shape.gpu), key[1])))
        return room >= shape.ranks

    @property
    def startable_now(self) -> bool:
        """Whether some waiting task fits now."""
        if self.free_cores <= 0:
            return False
        if self.queue is not None:
            return len(self.queue) > 0 and self.queue.ranks.min() <= self.free_cores
        return next(self.startable(), None) is not None

    def releases(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds from now until running tasks are expected to end, in order, after a 0; and the cores free then."""
        running = sorted(self.running.values(), key=attrgetter("expected_s"))
        in_s = np.array([0.0, *(task.expected_s - self.now_s for task in running)])
        free = np.cumsum([float(self.free_cores), *(task.shape.ranks for task in running)])
        return in_s.clip(0.0), free

    def delays_s(self, ranks: Any) -> NDArray[np.float64]:
        """Seconds until so many cores are expected to be free; of more than there are, until nothing runs."""
        in_s, free = self.releases()
        return np.asarray(in_s[np.minimum(np.searchsorted(free, ranks), len(in_s) - 1)])

    def startable(self) -> Iterator[dict[int, ActiveTask]]:
        """Groups of waiting tasks that are alike, of which some shape fits now."""
        for group in self.alike.values():
            first = next(iter(group.values()))
            if any(self.fits(first, shape) for shape in first.shapes):
                yield group

    def fitting(self, task: ActiveTask) -> list[TaskShape]:
        """Shapes on which a task can be started now, few ranks first."""
        return [shape for shape in task.shapes if self.fits(task, shape)]

    def wider(self, task: ActiveTask) -> list[TaskShape]:
        """Other shapes on which a running task could go on now; none if it cannot."""
        if not task.job.resizable or not task.settled:
            return []
        free = self.free_cores + task.shape.ranks
        gpus = self.free_gpus + task.shape.ranks * task.shape.gpu
        return [s for s in task.shapes if s != task.shape and s.ranks <= free and (not s.gpu or s.ranks <= gpus)]

    # What the campaign changes.

    def enqueue(self, task: ActiveTask) -> None:
        """Add a waiting task."""
        self.waiting[task.job.number] = task
        self.waiting_work_s += task.work_left_s
        if self.queue is not None:
            self.queue.add(task)
        self.alike.setdefault(_alike(task), {})[task.job.number] = task

    def dequeue(self, task: ActiveTask) -> None:
        """Remove a waiting task."""
        del self.waiting[task.job.number]
        self.waiting_work_s -= task.work_left_s
        if self.queue is not None:
            self.queue.remove(task)
        group = self.alike[_alike(task)]
        del group[task.job.number]
        if not group:
            del self.alike[_alike(task)]

    def arrive(self, task: ActiveTask) -> None:
        """Add a task that has arrived."""
        self.work_log += math.log(max(task.job.estimate_s, 1e-9))
        self.tasks[task.job.number] = task

    def shapes(self, job: JobRequest) -> tuple[TaskShape, ...]:
        """Shapes on which a task can ever be started."""
        found = []
        for gpu in (False, True):
            if job.gpu is (GpuUse.NO if gpu else GpuUse.NEED):
                continue
            for ranks in self.options.ranks if self.queue is None else (job.requested_ranks,):
                need = job.need(TaskShape(ranks, gpu))
                if ranks <= _room(self.capacity, gpu, need.memory_per_rank_mb):
                    found.append(TaskShape(ranks, gpu))
        return tuple(sorted(found, key=lambda shape: shape.ranks))

    def charge(self, shape: TaskShape) -> float:
        """Share of the machine that a shape takes, in nodes."""
        return shape.ranks * (self._node_of_gpu if shape.gpu else self._node_of_core)

    def least_area(self, task: ActiveTask) -> float:
        """Least estimated node-seconds for the rest of a task; infinite if it can never run."""
        scaling = self.scalings[task.job.kind]
        return min(
            (scaling.seconds(task.work_left_s, s.ranks, s.gpu) * self.charge(s) for s in task.shapes), default=math.inf
        )

    def gpu_seconds(self, task: ActiveTask) -> float:
        """Estimated GPU-seconds of a task on as few GPUs as possible; 0 if it takes none."""
        shape = next((shape for shape in task.shapes if shape.gpu), None)
        if shape is None:
            return 0.0
        return shape.ranks * self.scalings[task.job.kind].seconds(task.job.estimate_s, shape.ranks, gpu=True)

    def place(self, task: ActiveTask, shape: TaskShape) -> bool:
        """Take what a task needs; False if it is not free."""
        placement = self.pool.take(task.job.need(shape))
        if placement is None:
            return False
        task.placement, task.shape = placement, shape
        task.charge = self.charge(shape)
        self._count(task, -1)
        return True

    def release(self, task: ActiveTask) -> None:
        """Give back what a task had, as far as its nodes are there."""
        self.pool.release(task.placement)
        self._count(task, 1)
        task.placement = ()

    def on_machine(self, machine: Machine) -> list[ActiveTask]:
        """Take changes of nodes; returns the running tasks that were placed on those that went."""
        if machine.nodes != self.pool.nodes:
            self.pool.resize(machine.nodes)
        self.pool.change(machine.down)
        self._group_of += [self.groups[-1]] * (machine.nodes - len(self._group_of))
        for group in self.groups:
            group.nodes = group.free_cores = group.free_gpus = 0
        for state in self.pool.states():
            group = self._group_of[state.index]
            group.nodes += 1
            group.free_cores += state.free_cores
            group.free_gpus += round(state.free_gpus)
        self.total_cores = sum(group.nodes * group.kind.cores for group in self.groups)
        self.total_gpus = sum(group.nodes * group.kind.gpus for group in self.groups)
        self.free_cores = sum(group.free_cores for group in self.groups)
        self.free_gpus = sum(group.free_gpus for group in self.groups)
        self._rooms.clear()
        gone = self.pool.absent | set(range(machine.nodes, self.capacity.nodes))
        return [task for task in self.running.values() if any(part.node in gone for part in task.placement)]

    def learn(self, task: ActiveTask, seconds: float) -> None:
        """Learn from a task that ran on one shape from beginning to end, in ``seconds``."""
        if self.queue is not None:
            return  # what its user requested stays what is believed
        start_up_s = self._start_up(task.shape)
        scaling = self.scalings[task.job.kind]
        scaling.learn(task.job.estimate_s, task.shape.ranks, task.shape.gpu, max(seconds - start_up_s, 1e-9))

    def _seconds(self, task: ActiveTask, shape: TaskShape, share: float) -> float:
        if self.queue is not None:
            return self._start_up(shape) + task.job.estimate_s * share
        scaling = self.scalings[task.job.kind]
        return self._start_up(shape) + scaling.seconds(task.job.estimate_s * share, shape.ranks, shape.gpu)

    def _start_up(self, shape: TaskShape) -> float:
        seconds = self._start_up_s.get(shape.ranks)
        if seconds is None:
            seconds = self._start_up_s[shape.ranks] = self.options.program.start_up(shape.ranks)
        return seconds

    def _count(self, task: ActiveTask, sign: int) -> None:
        absent = self.pool.absent
        for part in task.placement:
            if part.node in absent:
                continue
            cores, gpus = sign * part.cores.bit_count(), sign * part.ranks * task.shape.gpu
            group = self._group_of[part.node]
            group.free_cores += cores
            group.free_gpus += gpus
            self.free_cores += cores
            self.free_gpus += gpus
        self._rooms.clear()


def _alike(task: ActiveTask) -> Alike:
    return task.job.kind, task.shapes, task.job.memory_mb


def _room(capacity: Capacity, gpu: bool, memory_mb: int | None) -> int:
    """Ranks of a task that the empty machine has room for."""
    total = 0
    for group in capacity.kinds:
        fit = min(group.cores, group.gpus) if gpu else group.cores
        if memory_mb and group.memory_mb is not None:
            fit = min(fit, group.memory_mb // memory_mb)
        total += group.nodes * fit
    return total
