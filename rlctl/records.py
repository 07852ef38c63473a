"""The records of a journal, and how events and actions are written as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlctl.campaign import Action
from rlctl.task import Event, Failure, TaskId, TaskResult, TaskState


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a journal.

    Attributes:
        seq: 1, 2, 3 ... without gaps.
        time_s: seconds on the executor's clock.
        kind: ``submitted``, ``launching``, ``started`` (by executors); ``decision``, ``event``, ``time``, ``machine``
            (by the driver); ``epoch``, ``policy``, ``fallback``, ``braked``, ``ended`` (by steering).
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
        """Nothing to do: every record is kept at once."""
        return nullcontext()


def event_to_json(event: Event) -> dict[str, Any]:
    """JSON-ready form of an event."""
    data: dict[str, Any] = {
        "time_s": event.time_s,
        "uid": event.uid,
        "state": event.state.value,
        "attempt": event.attempt,
    }
    if event.progress is not None:
        data["progress"] = dict(event.progress)
    if event.failure is not None:
        data |= {"failure": event.failure.value, "message": event.message}
    if event.result is not None:
        r = event.result
        data["result"] = {
            "values": dict(r.values),
            "failure": r.failure.value if r.failure else None,
            "message": r.message,
            "started_s": r.started_s,
            "ended_s": r.ended_s,
            "cores": r.cores,
        }
    return data


def event_from_json(data: Mapping[str, Any]) -> Event:
    """The event that ``event_to_json`` wrote."""
    uid, state, attempt = TaskId(data["uid"]), TaskState(data["state"]), int(data["attempt"])
    result = None
    if "result" in data:
        r = data["result"]
        result = TaskResult(
            uid=uid,
            state=state,
            attempt=attempt,
            values=r["values"],
            failure=Failure(r["failure"]) if r["failure"] else None,
            message=r["message"],
            started_s=r["started_s"],
            ended_s=r["ended_s"],
            cores=r["cores"],
        )
    progress = data.get("progress")
    failure = Failure(data["failure"]) if "failure" in data else None
    return Event(
        data["time_s"], uid, state, attempt, result, progress=progress, failure=failure, message=data.get("message", "")
    )


def action_to_json(action: Action) -> Any:
    """A list of indices, or a mapping of named quantities."""
    if isinstance(action, Mapping):
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in action.items()}
    return [int(i) for i in np.atleast_1d(action)]


def action_from_json(data: Any) -> Action:
    """The action that ``action_to_json`` wrote."""
    return data if isinstance(data, Mapping) else np.asarray(data, dtype=np.int64)
