"""A pool as the engine has it: a backend, its nodes, and what a former controller has left there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.task import Resources, TaskSpec
from rlctl.executors.backend import Backend, NodesChanged
from rlctl.executors.factory import PoolPlan
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.naming import attempt_key
from rlctl.executors.node_share import Allocation, core_numbers
from rlctl.executors.pool import NodePool
from rlctl.executors.recovery import History, Launched, allocation_of


class DrivenPool:
    """See the module; every method is called with the lock of the engine held.

    Attributes:
        first_node: its number among the nodes of all pools.
        planned: how many nodes it was opened with.
        unattended_s: for so long attempts of a former controller ran without one.
        announces: whether the backend wants to know of attempts that wait.
        thread: polls the backend; None: the engine does so inside ``wait``.
        closed: the backend must not be called any more.
    """

    def __init__(self, plan: PoolPlan, first_node: int, several: bool, incarnation: int) -> None:
        self.backend = plan.backend
        self.name = plan.name
        self.first_node = first_node
        self.planned = plan.backend.capacity.nodes
        self.announces = type(plan.backend).announce is not Backend.announce
        self.unpaid = 0
        self.thread: threading.Thread | None = None
        self.closed = False
        self._several = several
        self._fits = set[Resources]()  # what fits if nothing else runs
        left = self.backend.open(incarnation)
        self.unattended_s = left.unattended_s
        self.nodes = self.backend.node_pool()
        self._running, self._ended = set(left.running), set(left.ended)  # attempts that no task has asked for yet
        self._kept: dict[str, Allocation] = {}
        self.look()

    def look(self) -> None:
        """Ask which nodes are there."""
        self._fits.clear()
        if self.backend.group is not None:
            self.nodes.group = self.backend.group
        self.change(self.backend.nodes())

    def change(self, change: NodesChanged) -> None:
        """Nodes have come or gone."""
        self.unpaid = change.unpaid
        self.nodes.change(change.down, change.workers)

    def check(self, spec: TaskSpec) -> None:
        """Raise LaunchError if a task can never run here."""
        if spec.resources not in self._fits:
            self.nodes.check(spec)
            self._fits.add(spec.resources)
        self.backend.check(spec)

    def describe(self, allocation: Allocation) -> dict[str, Any]:
        """An allocation as journals have it: node n has the core numbers from n times the cores of a node."""
        width, first = self.backend.capacity.cores, self.first_node
        numbered = self._several or self.planned > 1
        where: dict[str, Any] = {
            "cores": [(first + s.node) * width + core for s in allocation for core in core_numbers(s.cores)],
            "gpus": {
                f"node{first + share.node}:{device}" if numbered else str(device): part / 1000
                for share in allocation
                for device, part in share.gpus
            },
            "nodes": [first + share.node for share in allocation],
        }
        if self.name:
            where["pool"] = self.name
        return {**where, **self.backend.describe(allocation)}

    # What a former controller has left.

    def keep_places(self, history: History) -> None:
        """Let no other task take the place of what still runs, until it is asked for again or dropped."""
        for uid, launched in history.attempts.items():
            key = attempt_key(uid, launched.number)
            if key in self._running and key not in self._kept and launched.pool == self.name:
                allocation = allocation_of(launched, self.backend.capacity, Resources(), self.first_node)
                if allocation is not None and self.nodes.occupy(allocation):
                    self._kept[key] = allocation

    def claim(self, spec: TaskSpec, launched: Launched) -> Allocation | None:
        """Occupy the place of an attempt that is about to be adopted; None: others have it, or it is not known."""
        key = attempt_key(spec.uid, launched.number)
        self._running.discard(key)
        self._ended.discard(key)
        self.nodes.release(self._kept.pop(key, ()))
        allocation = allocation_of(launched, self.backend.capacity, spec.resources, self.first_node)
        return allocation if allocation is not None and self.nodes.occupy(allocation) else None

    def exited(self, key: str) -> None:
        """An attempt has exited that no task has asked for."""
        self.nodes.release(self._kept.pop(key, ()))
        if key in self._running:
            self._running.discard(key)
            self._ended.add(key)
        else:
            self.backend.acknowledge(key)

    def drop_unclaimed(self) -> None:
        """Stop what no task has asked for: the campaign has no use for it."""
        if not self._running and not self._ended:
            return
        for key in self._running:
            self.backend.stop(key, GRACE_S)
        for key in self._ended:
            self.backend.acknowledge(key)
        self._running.clear()
        self._ended.clear()


def open_pools(plans: Sequence[PoolPlan], incarnation: int) -> list[DrivenPool]:
    """Open the backends; where one cannot be had (``LaunchError``), none stays open."""
    pools = list[DrivenPool]()
    try:
        for plan in plans:
            first_node = sum(pool.planned for pool in pools)
            pools.append(DrivenPool(plan, first_node, len(plans) > 1, incarnation))
    except BaseException:
        for pool in pools:
            pool.backend.close(keep_outcomes=True)
        raise
    return pools


def possible_pools(pools: Sequence[DrivenPool], spec: TaskSpec) -> tuple[NodePool, ...]:
    """The pools in which a task can run, in their order; ``LaunchError``: none, or not the one that it names."""
    if len(pools) == 1 and not pools[0].name:
        pools[0].check(spec)
        return (pools[0].nodes,)
    if spec.pool is not None:
        named = next((pool for pool in pools if pool.name == spec.pool), None)
        if named is None:
            known = ", ".join(pool.name for pool in pools)
            raise LaunchError(f"task {spec.uid} names the pool {spec.pool!r}, which is not there; known: {known}")
        named.check(spec)
        return (named.nodes,)
    possible, reasons = [], []
    for pool in pools:
        try:
            pool.check(spec)
            possible.append(pool.nodes)
        except LaunchError as error:
            reasons.append(f"{pool.name}: {str(error).removeprefix(f'task {spec.uid}').removeprefix(':').strip()}")
    if not possible:
        together = replace(pools[0].backend.capacity, nodes=sum(pool.nodes.nodes for pool in pools))
        NodePool(together).check(spec)
        raise LaunchError(f"task {spec.uid} can run in no pool ({'; '.join(reasons)})")
    return tuple(possible)
