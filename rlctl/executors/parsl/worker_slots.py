"""A pool of nodes whose workers come and go: a task takes one worker, and never more run than are connected."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Self

from rlctl.core.machine import Capacity, Scoring
from rlctl.core.task import Resources
from rlctl.executors.node_share import Allocation
from rlctl.executors.pool import NodePool


class WorkerSlots(NodePool):
    """Nodes that consist of workers. A task takes one worker, so all of its ranks are on one node.

    Parsl chooses the worker of a task; a node of this pool is any of those that are alike.

    >>> pool = WorkerSlots(Capacity(nodes=2, cores=4))
    >>> pool.take(Resources()) is None
    True
    >>> pool.change((), workers=1)
    >>> pool.take(Resources())
    (NodeShare(node=0, ranks=1, cores=1, gpus=(), memory_mb=0),)
    >>> pool.take(Resources()) is None
    True

    Attributes:
        workers: how many are connected.
    """

    def __init__(self, capacity: Capacity, scoring: Scoring | None = None, per_node: int = 1) -> None:
        """Make a pool without workers; each node is to have ``per_node`` of them."""
        super().__init__(capacity, scoring)
        self._per_node = per_node
        self._free = [per_node] * capacity.nodes
        self._busy = 0
        self.workers = 0
        self._adjust()

    def change(self, down: Collection[int] = (), workers: int | None = None) -> None:
        """Set the number of connected workers. A node that is lost but busy goes when its tasks have ended."""
        self.workers = self.workers if workers is None else workers
        self._adjust()

    def ever(self, need: Resources) -> bool:
        """Whether a task would fit if all workers were there and free."""
        return need.nodes in (None, 1) and super().ever(replace(need, nodes=1))

    def take(self, need: Resources, avoid: Collection[int] = ()) -> Allocation | None:
        """As ``NodePool.take``, within one node that has a free worker."""
        if self._busy >= self.workers or need.nodes not in (None, 1):
            return None
        full = {node for node, free in enumerate(self._free) if not free}
        need = need if need.ranks == 1 else replace(need, nodes=1)
        allocation = super().take(need, full | set(avoid) if full else avoid)
        self._occupy_slots(allocation or (), 1)
        return allocation

    def release(self, allocation: Allocation) -> None:
        """Free what ``take`` or ``occupy`` has occupied."""
        super().release(allocation)
        self._occupy_slots(allocation, -1)
        self._adjust()

    def occupy(self, allocation: Allocation) -> bool:
        """As ``NodePool.occupy``."""
        if any(share.node >= len(self._free) or not self._free[share.node] for share in allocation):
            return False
        if not super().occupy(allocation):
            return False
        self._occupy_slots(allocation, 1)
        return True

    def resize(self, nodes: int) -> list[int]:
        """Have at most so many nodes; as many are up as have workers."""
        gone = super().resize(nodes)
        self._free += [self._per_node] * (len(self._up) - len(self._free))
        self._adjust()
        return gone

    def copy(self) -> Self:
        """A copy, to try what would fit."""
        other = super().copy()
        other._free = list(self._free)
        return other

    def _occupy_slots(self, allocation: Allocation, tasks: int) -> None:
        for share in allocation:
            self._free[share.node] -= tasks
            self._busy += tasks

    def _adjust(self) -> None:
        """Have as many nodes up as the workers make, but for busy ones."""
        wanted = min(self.nodes, -(-self.workers // self._per_node))
        for node in range(self.nodes):
            if not self._up[node] and sum(self._up) < wanted:
                self.use(node, True)
        for node in reversed(range(self.nodes)):
            if self._up[node] and sum(self._up) > wanted and self._free[node] == self._per_node:
                self.use(node, False)
