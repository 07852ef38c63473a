"""Writes what happens to tasks into a journal; nothing else writes these records.

``submitted`` is written before a task is acknowledged, ``launching`` before its process is started, and the ``event``
of its end before it is reported. In a campaign events are written when ``Executor.wait`` returns them: what a
policy had not seen when it decided must not stand before its decision. Otherwise they are written when they happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlctl.core.errors import RlctlError
from rlctl.core.records import Recorder
from rlctl.core.task import Event, TaskId, event_to_json

Then = Callable[[RlctlError | None], None]
"""Called, from any thread, when a record is on disk, or with the reason why it cannot be written."""


class TaskLog:
    """See the module.

    Attributes:
        at_once: whether events are written when they happen, rather than when they are returned.
    """

    def __init__(self, recorder: Recorder, *, at_once: bool) -> None:
        self.recorder = recorder
        self.at_once = at_once
        self._details: dict[int, Mapping[str, Any]] = {}  # of events that were not returned yet, by their number

    def submitted(self, uid: TaskId, attempt: int, time_s: float, parameters: Mapping[str, Any]) -> None:
        """A task is about to be queued; it is on disk when this returns."""
        self.recorder.append("submitted", time_s, {"uid": uid, "attempt": attempt, "parameters": dict(parameters)})

    def submitted_call(self, uid: TaskId, time_s: float, function: str) -> None:
        """A call is queued; it dies with its controller, so that nothing waits for the disk."""
        self.recorder.write("submitted", time_s, {"uid": uid, "attempt": 1, "function": function})

    def launching(
        self, uid: TaskId, attempt: int, time_s: float, where: Mapping[str, Any], then: Then | None = None
    ) -> None:
        """An attempt is about to be started."""
        self.recorder.write("launching", time_s, {"uid": uid, "attempt": attempt, **where}, then)

    def started(self, event: Event, details: Mapping[str, Any]) -> None:
        """An attempt runs; ``details`` name its process."""
        if not self.at_once:
            self._details[event.seq] = details
        elif details:
            self.event(event, details)

    def event(self, event: Event, details: Mapping[str, Any] | None = None, then: Then | None = None) -> None:
        """Write an event now."""
        self.recorder.write("event", event.time_s, {**event_to_json(event), **(details or {})}, then)

    def returned(self, events: Sequence[Event]) -> None:
        """Write events that ``Executor.wait`` is about to return; they are on disk when this returns."""
        if self.at_once or not events:
            return
        with self.recorder.batch():
            for event in events:
                data = event_to_json(event)
                if self._details and (details := self._details.pop(event.seq, None)):
                    data |= details
                self.recorder.append("event", event.time_s, data)
