"""The books of workers that come and go: a task has one, and never do more run than are connected."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rlctl.core.machine import Capacity, Scoring
from rlctl.core.task import Resources
from rlctl.executors.pool import Placement, Pool


class WorkerPool(Pool):
    """Nodes that consist of workers. A task takes one worker, so all of its ranks are on one node.

    Which worker a task gets is Parsl's choice; a node of the books is any of those that are alike.

    >>> pool = WorkerPool(Capacity(nodes=2, cores=4))
    >>> pool.take(Resources()) is None
    True
    >>> pool.connected(1)
    >>> pool.take(Resources())
    (Part(node=0, ranks=1, cores=1, gpus=(), memory_mb=0),)
    >>> pool.take(Resources()) is None
    True

    Attributes:
        workers: how many are connected.
    """

    def __init__(self, capacity: Capacity, scoring: Scoring | None = None, per_node: int = 1) -> None:
        """Books without workers.

        Args:
            per_node: workers of each node.
        """
        super().__init__(capacity, scoring)
        self._per_node = per_node
        self._free = [per_node] * capacity.nodes
        self._busy = 0
        self.workers = 0
        self.connected(0)

    def connected(self, workers: int) -> None:
        """So many workers are there now. A node whose tasks have not ended yet goes when they have."""
        self.workers = workers
        wanted = min(self.nodes, -(-workers // self._per_node))
        for node in range(self.nodes):
            if not self._up[node] and sum(self._up) < wanted:
                self.up(node)
        for node in reversed(range(self.nodes)):
            if self._up[node] and sum(self._up) > wanted and self._free[node] == self._per_node:
                self.down(node)

    def ever(self, need: Resources) -> bool:
        """Whether a task would fit if all workers were there and free."""
        pool = WorkerPool(replace(self.capacity, nodes=self.nodes), None, self._per_node)
        pool.connected(self.nodes * self._per_node)
        return pool.take(need) is not None

    def take(self, need: Resources, avoid: Collection[int] = ()) -> Placement | None:
        """As ``Pool.take``, within one node that has a free worker."""
        if self._busy >= self.workers or need.nodes not in (None, 1):
            return None
        full = {node for node, free in enumerate(self._free) if not free}
        whole = need if need.ranks == 1 else replace(need, nodes=1)
        placement = super().take(whole, full | set(avoid) if full else avoid)
        self._count_in(placement or ())
        return placement

    def give(self, placement: Placement) -> None:
        """Take back what ``take`` gave."""
        super().give(placement)
        for part in placement:
            self._free[part.node] += 1
            self._busy -= 1
        if placement:
            self.connected(self.workers)

    def occupy(self, placement: Placement) -> bool:
        """As ``Pool.occupy``."""
        if any(part.node >= len(self._free) or not self._free[part.node] for part in placement):
            return False
        if not super().occupy(placement):
            return False
        self._count_in(placement)
        return True

    def resize(self, nodes: int) -> list[int]:
        """Have at most so many nodes; as many are there as have workers."""
        gone = super().resize(nodes)
        self._free += [self._per_node] * (len(self._up) - len(self._free))
        self.connected(self.workers)
        return gone

    def copy(self) -> WorkerPool:
        """The same books, to try what would be."""
        other = WorkerPool(replace(self.capacity, nodes=0), self.scoring, self._per_node)
        self._copy_into(other)
        other._free, other._busy = list(self._free), self._busy
        other.workers = self.workers
        return other

    def _count_in(self, placement: Placement) -> None:
        for part in placement:
            self._free[part.node] -= 1
            self._busy += 1
