"""Records of a journal, and the recorder that writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

EVENTS: Mapping[str, str] = {
    # Written by the executor: ``rlctl.executors.task_log``.
    "submitted": "A task is queued: uid, attempt, and parameters or function.",
    "launching": "An attempt is about to be started: uid, attempt, cores, gpus, nodes; pool; job and hosts of Slurm.",
    "event": "A task has another state, or progress: see ``event_to_json``; pid and host where a program runs.",
    # Written by the driver: ``rlctl.core.driver``.
    "decision": "A decision is answered: number, action, subject, asked_s, successes; named quantities.",
    "machine": "Nodes have come or gone: nodes, down, paid.",
    "time": "A wait has ended without events, or the controller stops.",
    # Written by the driver between two controllers, or between two evaluations that are made elsewhere.
    "config": "The configuration is changed: before, after, extends (whether the campaign's part is), policy.",
    "rerun": "Evaluations are asked for again: their numbers.",
    "known": "Results from elsewhere are made known: from, rows.",
    "asked": "Evaluations are made elsewhere: their numbers; with away false, here after all.",
    # Written by steering: ``rlctl.steering.control``.
    "epoch": "A controller begins: what it runs on.",
    "policy": "The policy's memory before a decision is answered: number, state.",
    "fallback": "The fallback answers a decision: number, reason.",
    "braked": "The campaign is stopped: reason.",
    "ended": "The campaign has ended: its summary.",
}
"""The kinds of records, and what their data hold."""

AMENDMENTS = ("config", "rerun", "known", "asked")
"""Those by which users change a campaign that has begun."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a journal.

    Attributes:
        seq: 1, 2, 3 ... without gaps.
        time_s: seconds on the executor's clock.
        kind: one of ``EVENTS``.
        data: JSON-ready.
    """

    seq: int
    time_s: float
    kind: str
    data: Mapping[str, Any]


class RecordList(list[Record]):
    """A recorder that keeps the records in memory; for simulated campaigns.

    >>> records = RecordList()
    >>> records.append("time", 3.0, {})
    >>> records[0].seq
    1
    """

    def append(self, kind: str, time_s: float, data: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Keep one record."""
        super().append(Record(len(self) + 1, time_s, kind, data))

    def write(
        self, kind: str, time_s: float, data: Mapping[str, Any], done: Callable[[None], None] | None = None
    ) -> None:
        """Keep one record."""
        self.append(kind, time_s, data)
        if done is not None:
            done(None)

    def batch(self) -> AbstractContextManager[None]:
        """Do nothing: every record is kept at once."""
        return nullcontext()


class Recorder(Protocol):
    """Takes what the driver writes before it acts; a journal, in a real campaign."""

    def append(self, kind: str, time_s: float, data: Mapping[str, Any]) -> None:
        """Write one record; it is durable when this returns, or at the end of ``batch``."""

    def write(
        self, kind: str, time_s: float, data: Mapping[str, Any], done: Callable[[Any], None] | None = None
    ) -> None:
        """Write one record soon; ``done`` is called when it is durable, or with the error, from any thread."""

    def batch(self) -> AbstractContextManager[None]:
        """What is appended inside becomes durable together, at the end."""
