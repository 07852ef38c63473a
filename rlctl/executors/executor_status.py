"""What ``Executor.status`` and ``Executor.machine`` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlctl.core.machine import Machine
from rlctl.core.task import Resources, TaskId, TaskState
from rlctl.executors.dispatch import Dispatcher


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
    """The state of an executor.

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


def status_of(dispatch: Dispatcher) -> ExecutorStatus:
    """The state of all pools together; needs the lock."""
    scheduler, running = dispatch.scheduler, []
    first = {pool.nodes: pool.first_node for pool in dispatch.pools}
    for t in scheduler.running.values():
        ranks = {first[t.pool] + share.node: share.ranks for share in t.allocation} if t.pool else {}
        running.append(RunningTask(t.uid, t.attempt, t.state, t.need, ranks, t.started_s))
    nodes = [node for pool in scheduler.pools for node in pool.states()]
    return ExecutorStatus(
        dispatch.now(),
        scheduler.seq,
        len(nodes),
        scheduler.waiting,
        scheduler.held,
        running,
        sum(node.free_cores for node in nodes),
        sum(node.free_gpus for node in nodes),
    )


def machine_of(dispatch: Dispatcher) -> Machine:
    """Which nodes of all pools are there; needs the lock."""
    pools = dispatch.pools
    if len(pools) == 1:
        nodes = pools[0].nodes
        return Machine(nodes.nodes, nodes.absent, nodes.nodes - pools[0].unpaid)
    down = frozenset(pool.first_node + node for pool in pools for node in pool.nodes.absent)
    total = sum(pool.nodes.nodes for pool in pools)
    return Machine(total, down, total - sum(pool.unpaid for pool in pools))
