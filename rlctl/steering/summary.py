"""What came of a steered campaign, as it is kept in the run folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlctl.core.errors import JournalError
from rlctl.core.json_values import plain
from rlctl.core.records import Record
from rlctl.core.task import event_from_json

SCHEMA = 2
"""2 added ``core_seconds`` and ``gpu_seconds``; what schema 1 wrote is read, without them."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A campaign that has ended.

    Attributes:
        policy: name of the policy that steered.
        reached: whether the goal was reached within the allocation.
        node_seconds: allocated, whoever was busy, from the first start to the end of the last task.
        utilisation: share of the allocated core-seconds that tasks occupied.
        tasks: number of tasks by final state.
        failures: number of failed tasks by kind of failure.
        fallbacks: number of decisions that the policy did not answer itself, by reason.
        extra: the campaign's own figures.
        core_seconds: of the allocation, by purpose (``rlctl.monitoring.ledger.Purpose``).
        gpu_seconds: likewise.
    """

    campaign: str
    instance: int
    policy: str
    reached: bool
    successes: int
    node_seconds: float
    utilisation: float
    decisions: int
    tasks: Mapping[str, int]
    failures: Mapping[str, int]
    fallbacks: Mapping[str, int]
    seed: int
    config_hash: str
    extra: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    core_seconds: Mapping[str, float] = field(default_factory=dict)
    gpu_seconds: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        """What ``to_json`` gave, in this version or an earlier one.

        Raises:
            JournalError: a later version wrote it, or it is no summary.
        """
        schema = data.get("schema")
        if schema not in range(1, SCHEMA + 1):
            raise JournalError(
                f"summary of schema {schema!r}, this rlctl reads up to {SCHEMA}: use the rlctl version that wrote it"
            )
        try:
            return cls(**data)
        except TypeError as error:
            raise JournalError(f"summary of schema {schema} is damaged ({error})") from error

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        data: dict[str, Any] = plain(self)
        return data

    def write(self, path: Path) -> None:
        """Write it so that a reader finds the whole file or none."""
        part = path.with_name(path.name + ".part")
        with part.open("w") as file:
            json.dump(self.to_json(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def task_counts(records: Iterable[Record]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """From a journal: final tasks by state, failed ones by kind, decisions of the fallback by reason."""
    states: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    reasons: dict[int, str] = {}
    for record in records:
        if record.kind == "event":
            event = event_from_json(record.data)
            if event.result is not None:
                states[event.state.value] += 1
                if event.result.failure is not None:
                    failures[event.result.failure.value] += 1
        elif record.kind == "fallback":
            # A kill between this record and the decision's makes the same decision fall back again.
            reasons[record.data["number"]] = record.data["reason"]
    return dict(states), dict(failures), dict(Counter(reasons.values()))
