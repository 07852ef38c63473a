"""Waiting tasks, by priority and order of submission; those that fit alike are in one heap."""

from __future__ import annotations

import bisect
import heapq
import math

from rlctl.core.task import Resources
from rlctl.executors.pool import NodePool
from rlctl.executors.task_state import Task

_Entry = tuple[float, int, Task, int]
"""What a heap is sorted by, the task, and its ticket."""

_Heap = list[_Entry]

_Kind = tuple[Resources, tuple[NodePool, ...]]
"""Tasks of one kind fit in the same places; those in one heap have walltimes within a factor of two besides."""

Head = tuple[float, int, _Heap, int]
"""Of a heap: what its first entry is sorted by, the heap, and a number for its kind."""


class TaskQueue:
    """See the module."""

    def __init__(self) -> None:
        self.waiting = 0  # number of tasks
        self._heaps: dict[_Kind, dict[int | None, _Heap]] = {}
        self._withdrawn = 0  # entries that do not count any more
        self._tickets = 0

    def push(self, task: Task) -> None:
        """Add a task."""
        walltime_s = task.spec.walltime_s
        length = None if walltime_s is None else math.frexp(walltime_s)[1]
        heap = self._heaps.setdefault((task.need, task.pools), {}).setdefault(length, [])
        self._tickets += 1
        task.ticket = self._tickets
        heapq.heappush(heap, (-task.priority, task.order, task, task.ticket))
        self.waiting += 1

    def withdraw(self, task: Task) -> None:
        """Remove a task; its entry stays where it is until it comes first, or until most entries are such."""
        task.ticket = 0
        self.waiting -= 1
        self._withdrawn += 1
        if self._withdrawn > self.waiting:
            for heaps in self._heaps.values():
                for heap in heaps.values():
                    heap[:] = filter(_counts, heap)
                    heapq.heapify(heap)
            self._withdrawn = 0

    def clear(self) -> None:
        """Remove all."""
        self._heaps.clear()
        self.waiting = self._withdrawn = 0

    def heads(self) -> list[Head]:
        """The heaps by their first task, for one pass over the tasks, best first; empty ones are removed."""
        heads, empty = [], []
        for kind, heaps in self._heaps.items():
            for length, heap in heaps.items():
                if self._has_task(heap) if self._withdrawn else heap:
                    heads.append((*heap[0][:2], heap, id(kind)))
                else:
                    empty.append((kind, length))
        for kind, length in empty:
            del self._heaps[kind][length]
            if not self._heaps[kind]:
                del self._heaps[kind]
        heads.sort()
        return heads

    def take(self, heads: list[Head], at: int) -> None:
        """Remove the first task of a heap; its next one comes later in the pass."""
        _, _, heap, kind = heads[at]
        heapq.heappop(heap)
        self.waiting -= 1
        if self._has_task(heap):
            bisect.insort(heads, (*heap[0][:2], heap, kind), at + 1)

    def _has_task(self, heap: _Heap) -> bool:
        """Whether a task waits in this heap; its first entry counts then."""
        while self._withdrawn and heap and not _counts(heap[0]):
            heapq.heappop(heap)
            self._withdrawn -= 1
        return bool(heap)


def _counts(entry: _Entry) -> bool:
    return entry[2].ticket == entry[3]
