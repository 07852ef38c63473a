"""What a journal says of tasks that former controllers have started, for the executor that goes on with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import Failure, Resources, TaskId, TaskState
from rlctl.executors.backend import AttemptOutcome
from rlctl.executors.node_share import WHOLE, Allocation, NodeShare


@dataclass(frozen=True, slots=True)
class Launched:
    """The last attempt of a task.

    Attributes:
        cores: numbers over all nodes of all pools.
        gpus: shares by name, as ``launching`` records have them.
        pool: its name; empty: there was only one.
        since_s: when it began to run, or, unless ``began``, was about to be started.
    """

    number: int
    cores: tuple[int, ...] = ()
    gpus: tuple[tuple[str, float], ...] = ()
    pool: str = ""
    since_s: float = 0.0
    began: bool = False


KINDS = ("epoch", "launching", "event")
"""The records that are read."""


@dataclass(slots=True)
class History:
    """The state of an executor's tasks, folded from a journal.

    Attributes:
        incarnation: number of controllers so far; the next one's.
        attempts: the last launched one of each task.
        failures: attempts that failed and were followed by others.
    """

    incarnation: int = 0
    attempts: dict[TaskId, Launched] = field(default_factory=dict)
    finished: dict[TaskId, AttemptOutcome] = field(default_factory=dict)
    failures: dict[TaskId, int] = field(default_factory=dict)

    @classmethod
    def read(cls, records: Iterable[Record]) -> History:
        """From the records of a journal, in order."""
        history = cls()
        for record in records:
            if record.kind == "epoch":
                history.incarnation += 1
            elif record.kind == "launching":
                data = record.data
                cores, gpus = tuple(data["cores"]), tuple(data.get("gpus", {}).items())
                launched = Launched(int(data["attempt"]), cores, gpus, data.get("pool", ""), record.time_s)
                history.attempts[TaskId(data["uid"])] = launched
            elif record.kind == "event":
                history._add(record.data)
        return history

    def _add(self, data: Mapping[str, Any]) -> None:
        uid, state = TaskId(data["uid"]), TaskState(data["state"])
        if state is TaskState.RUNNING:  # again where a later controller has taken it over
            found = self.attempts.get(uid)
            if found is not None and found.number == int(data["attempt"]) and not found.began:
                self.attempts[uid] = replace(found, since_s=data["time_s"], began=True)
        elif state is TaskState.QUEUED and data.get("failure", Failure.LOST) != Failure.LOST:
            self.failures[uid] = self.failures.get(uid, 0) + 1
        elif state.final:
            result = data["result"]
            failure = Failure(result["failure"]) if result["failure"] else None
            canceled = state is TaskState.CANCELED
            self.finished[uid] = AttemptOutcome(result["values"], failure, result["message"], stopped=canceled)


def allocation_of(launched: Launched, capacity: Capacity, need: Resources, first_node: int = 0) -> Allocation | None:
    """Where an attempt runs, in the pool whose nodes begin at ``first_node``; None: its shape is another by now.

    >>> allocation_of(Launched(1, (0, 1)), Capacity(nodes=2, cores=2), Resources(ranks=2))
    (NodeShare(node=0, ranks=2, cores=3, gpus=(), memory_mb=0),)
    """
    masks, devices = defaultdict[int, int](int), defaultdict[int, list[tuple[int, int]]](list)
    for core in launched.cores:
        node, number = divmod(core, capacity.cores)
        masks[node - first_node] |= 1 << number
    for name, share in launched.gpus:
        on, _, device = name.removeprefix("node").rpartition(":")
        devices[int(on or 0) - first_node].append((int(device), round(share * WHOLE)))
    shares = []
    for node in sorted(masks.keys() | devices.keys()):
        if not 0 <= node < capacity.nodes:
            return None
        ranks = masks[node].bit_count() // need.cores_per_rank if need.cores_per_rank else 0
        memory_mb = ranks * (need.memory_per_rank_mb or 0)
        shares.append(NodeShare(node, ranks, masks[node], tuple(sorted(devices[node])), memory_mb))
    return tuple(shares)
