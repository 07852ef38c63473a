"""Summary of a steered campaign, ``summary.json`` in its run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from rlctl.core.errors import JournalError
from rlctl.core.json_values import plain
from rlctl.core.records import Record
from rlctl.core.task import event_from_json
from rlctl.steering.evaluation_table import Found

SCHEMA = 4
"""Schema 2 added ``core_seconds`` and ``gpu_seconds``, schema 3 ``found`` and ``reason``, schema 4 ``policy_reason``;
earlier files have none."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of a campaign that has ended.

    Attributes:
        policy: name of the steering policy.
        policy_reason: why it was chosen; empty: it was named.
        reached: whether the goal was reached within the allocation.
        node_seconds: allocated from the first start of the controller to the end of the last task.
        utilisation: share of the allocated core-seconds that tasks held.
        tasks: number of tasks by final state.
        failures: number of failed tasks by kind of failure.
        fallbacks: number of decisions of the fallback, by reason.
        extra: quantities of the campaign.
        core_seconds: allocated core-seconds by purpose (``rlctl.monitoring.ledger.Purpose``).
        gpu_seconds: allocated GPU-seconds by purpose.
        reason: why the campaign has ended, if it says more than whether the goal was reached.
        found: the best evaluations (``rlctl.steering.evaluation_table.Found``); empty: the campaign has none.
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
    found: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    policy_reason: str = ""
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        """Make a summary of what ``to_json`` returned in this version or an earlier one; else JournalError."""
        schema = data.get("schema")
        if schema not in range(1, SCHEMA + 1):
            raise JournalError(
                f"summary of schema {schema!r}, this rlctl reads up to {SCHEMA}: use the rlctl version that wrote it"
            )
        try:
            return cls(**data)
        except TypeError as error:
            raise JournalError(f"summary of schema {schema} is damaged ({error})") from error

    def found_so_far(self) -> Found | None:
        """The best evaluations; None: the campaign has none."""
        return TypeAdapter(Found).validate_python(self.found) if self.found else None

    def to_json(self) -> dict[str, Any]:
        """The summary for JSON."""
        data: dict[str, Any] = plain(self)
        return data


def task_counts(records: Iterable[Record]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Numbers of tasks by final state, of failed tasks by kind, and of fallback decisions by reason, from a journal."""
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
            # After a kill between this record and that of the decision, the same decision falls back again.
            reasons[record.data["number"]] = record.data["reason"]
    return dict(states), dict(failures), dict(Counter(reasons.values()))
