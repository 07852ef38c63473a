"""What a journal says of tasks that former controllers have started, for the executor that goes on with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import Failure, Resources, TaskId, TaskState
from rlctl.executors.pool import WHOLE, Part, Placement
from rlctl.executors.scheduler import Ending


@dataclass(frozen=True, slots=True)
class Launched:
    """The last attempt of a task.

    Attributes:
        cores: numbers over all nodes of all pools.
        gpus: shares by name, as ``launching`` records have them.
        pool: where, if there were several.
        since_s: when its program began, or, unless ``began``, got its place.
    """

    number: int
    cores: tuple[int, ...] = ()
    gpus: tuple[tuple[str, float], ...] = ()
    pool: str | None = None
    since_s: float = 0.0
    began: bool = False


KINDS = ("epoch", "launching", "started", "finished")
"""The records that tell of it."""

_FINAL = frozenset(state.value for state in TaskState if state.final)


@dataclass(slots=True)
class Past:
    """The state of an executor's tasks, folded from a journal.

    Attributes:
        epoch: number of controllers so far; the next one's.
        attempts: last launched attempt of each task that has not ended.
        finished: of an executor that records ends itself: how tasks ended.
        failures: likewise, attempts that failed and were followed by others.
    """

    epoch: int = 0
    attempts: dict[TaskId, Launched] = field(default_factory=dict)
    finished: dict[TaskId, Ending] = field(default_factory=dict)
    failures: dict[TaskId, int] = field(default_factory=dict)

    @classmethod
    def read(cls, records: Iterable[Record]) -> Past:
        """From the records of a journal, in order."""
        past = cls()
        for record in records:
            data = record.data
            if record.kind == "launching":
                cores, gpus = tuple(data["cores"]), tuple(data.get("gpus", {}).items())
                launched = Launched(int(data["attempt"]), cores, gpus, data.get("pool"), record.time_s)
                past.attempts[TaskId(data["uid"])] = launched
            elif record.kind == "started":  # said again by each controller that takes it over
                found = past.attempts.get(TaskId(data["uid"]))
                if found is not None and found.number == int(data["attempt"]) and not found.began:
                    past.attempts[TaskId(data["uid"])] = replace(found, since_s=record.time_s, began=True)
            elif record.kind == "epoch":
                past.epoch += 1
            elif record.kind == "finished" and data["state"] in _FINAL:
                past.finished[TaskId(data["uid"])] = _ending(data)
            elif record.kind == "finished" and data["state"] == TaskState.QUEUED:
                uid = TaskId(data["uid"])
                past.failures[uid] = past.failures.get(uid, 0) + 1
        return past


def _ending(data: Mapping[str, Any]) -> Ending:
    if data["state"] == TaskState.FAILED:
        return Ending(failure=Failure(data["failure"]), message=data["message"])
    return Ending(data.get("values", {}), stopped=data["state"] == TaskState.CANCELED)


def placement_of(
    launched: Launched, capacity: Capacity, need: Resources | None = None, first_node: int = 0
) -> Placement | None:
    """Where an attempt runs; None if the allocation has another shape by now, or it is in another pool.

    Args:
        first_node: number of the first node of this pool.

    >>> placement_of(Launched(1, (0, 1, 3)), Capacity(nodes=2, cores=2))
    (Part(node=0, ranks=0, cores=3, gpus=(), memory_mb=0), Part(node=1, ranks=0, cores=2, gpus=(), memory_mb=0))
    """
    masks: dict[int, int] = {}
    for core in launched.cores:
        node, number = divmod(core, capacity.cores)
        node -= first_node
        masks[node] = masks.get(node, 0) | 1 << number
    devices: dict[int, list[tuple[int, int]]] = {}
    for name, share in launched.gpus:
        on, _, device = name.removeprefix("node").rpartition(":")
        devices.setdefault(int(on or 0) - first_node, []).append((int(device), round(share * WHOLE)))
    if any(not 0 <= node < capacity.nodes for node in masks | devices):
        return None
    parts = []
    for node in sorted(masks | devices):
        cores = masks.get(node, 0)
        ranks = cores.bit_count() // need.cores_per_rank if need is not None and need.cores_per_rank else 0
        memory_mb = ranks * (need.memory_per_rank_mb or 0) if need is not None else 0
        parts.append(Part(node, ranks, cores, tuple(sorted(devices.get(node, ()))), memory_mb))
    return tuple(parts)
