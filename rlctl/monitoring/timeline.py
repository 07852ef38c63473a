"""The timeline of a campaign: which attempt of a task held which cores and when, and what the policy decided.

Ledger, Gantt chart, trace and pictures are made from it. It is a pure function of the records of a real or simulated
campaign.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlctl.config.schema import MachineSection
from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import Failure, TaskId, TaskState, event_from_json

_WAITED = frozenset({"event", "time"})
"""Records that end a wait; the controller writes all others while it works."""


@dataclass(slots=True)
class TaskAttempt:
    """One attempt of a task. Times are seconds on the executor's clock.

    Attributes:
        queued_s: time of submission.
        launched_s: time from which it held its cores; None: never.
        started_s: start of its program; None: not yet, or never.
        ended_s: time at which it released its cores or left the queue; None: it waits or runs.
        state: DONE, FAILED, CANCELED, RUNNING or QUEUED; FAILED for an attempt that will be repeated.
        failure: kind of failure; LOST if its controller died.
        cores: numbers of its cores.
        gpus: shares of GPUs by name.
        values: result.
        parameters: scientific inputs; recorded with the first attempt only.
    """

    uid: TaskId
    attempt: int
    queued_s: float
    launched_s: float | None = None
    started_s: float | None = None
    ended_s: float | None = None
    state: TaskState = TaskState.QUEUED
    failure: Failure | None = None
    message: str = ""
    cores: tuple[int, ...] = ()
    gpus: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def useful(self) -> bool:
        """Whether it is DONE or may become so."""
        return self.state in (TaskState.DONE, TaskState.RUNNING)


@dataclass(frozen=True, slots=True)
class AnsweredDecision:
    """A decision with the chosen action. Times are seconds on the executor's clock.

    Attributes:
        asked_s: time at which the campaign asked.
        answered_s: time at which the policy had decided.
        successes: units of the goal at ``asked_s``.
        fallback: reason why the fallback decided; None: the policy did.
        named: named quantities of the action; None: it has none, or is made of them.
    """

    number: int
    subject: str
    asked_s: float
    answered_s: float
    action: Any
    successes: int
    fallback: str | None = None
    named: Mapping[str, Any] | None = None

    @property
    def shown(self) -> Any:
        """The action for people."""
        return self.action if self.named is None else self.named


@dataclass(slots=True)
class Timeline:
    """History of a campaign on an allocation.

    Attributes:
        attempts: in order of submission.
        working: spans (from, to) in which the controller worked rather than waited; disjoint, in order.
        booting: spans in which a controller was starting.
        end_s: time of the last record.
        summary: final summary; None: the campaign has not ended.
        braked: why the controller stopped the campaign, unless it was resumed since; empty: it did not.
        machines: earlier machines, as (until when, machine), in order; ``capacity`` is the last one.
    """

    capacity: Capacity
    attempts: list[TaskAttempt] = field(default_factory=list)
    decisions: list[AnsweredDecision] = field(default_factory=list)
    working: list[tuple[float, float]] = field(default_factory=list)
    booting: list[tuple[float, float]] = field(default_factory=list)
    end_s: float = 0.0
    summary: Mapping[str, Any] | None = None
    braked: str = ""
    machines: list[tuple[float, Capacity]] = field(default_factory=list)

    @property
    def largest(self) -> Capacity:
        """The machine with the most cores so far, for pictures that have a row for each."""
        return max([self.capacity, *(machine for _, machine in self.machines)], key=lambda one: one.total_cores)

    def node_seconds(self, elapsed_s: float) -> float:
        """Node-seconds that are allocated until a time."""
        return sum(nodes * max(min(to_s, elapsed_s) - from_s, 0.0) for from_s, to_s, nodes in self._nodes())

    def elapsed_s(self, node_seconds: float) -> float:
        """Until when so many node-seconds are allocated."""
        for from_s, to_s, nodes in self._nodes():
            if node_seconds <= nodes * (to_s - from_s):
                return from_s + node_seconds / nodes
            node_seconds -= nodes * (to_s - from_s)
        return math.inf

    def _nodes(self) -> Iterator[tuple[float, float, int]]:
        """Spans with their numbers of nodes."""
        from_s = 0.0
        for to_s, capacity in [*self.machines, (math.inf, self.capacity)]:
            yield from_s, to_s, capacity.nodes
            from_s = to_s

    @property
    def charged_s(self) -> float:
        """End of the charged time: the end of the last task, or the last record of a run in progress."""
        return self.end_s if self.summary is None else self.elapsed_s(float(self.summary["node_seconds"]))

    @classmethod
    def read(cls, records: Iterable[Record], capacity: Capacity) -> Timeline:
        """Make the timeline of the records of a journal or of a ``RecordList``."""
        return _Reader(capacity).read(records)


class _Reader:
    def __init__(self, capacity: Capacity) -> None:
        self.timeline = Timeline(capacity)
        self._open: dict[tuple[TaskId, int], TaskAttempt] = {}
        self._fallbacks: dict[int, str] = {}

    def read(self, records: Iterable[Record]) -> Timeline:
        timeline = self.timeline
        before = ""
        for record in records:
            since_s, now_s = timeline.end_s, max(timeline.end_s, record.time_s)
            if before == "epoch":
                timeline.booting.append((since_s, now_s))
            elif record.kind not in _WAITED and record.kind != "epoch" and now_s > since_s:
                timeline.working.append((since_s, now_s))
            timeline.end_s = now_s
            self._take(record, now_s)
            before = record.kind
        return timeline

    def _take(self, record: Record, now_s: float) -> None:
        data = record.data
        match record.kind:
            case "config" if data["extends"]:
                before, after = (MachineSection(**data[which]["machine"]).capacity() for which in ("before", "after"))
                if before != after:
                    self.timeline.machines.append((now_s, before))
            case "rerun":
                self.timeline.summary = None
            case "epoch":
                self.timeline.braked, self.timeline.summary = "", None
                self._lose(now_s)
            case "braked":
                self.timeline.braked = str(data["reason"])
            case "submitted":
                attempt = self._attempt(TaskId(data["uid"]), int(data["attempt"]), now_s, again=True)
                attempt.parameters = data.get("parameters", {})
            case "launching":
                attempt = self._attempt(TaskId(data["uid"]), int(data["attempt"]), now_s, again=True)
                attempt.launched_s, attempt.state = now_s, TaskState.RUNNING
                attempt.cores, attempt.gpus = tuple(data["cores"]), dict(data.get("gpus", {}))
            case "event":
                # Records of events may be written late: the time of the record itself counts.
                self._event(record, record.time_s)
            case "fallback":
                self._fallbacks[int(data["number"])] = str(data["reason"])
            case "decision":
                number = int(data["number"])
                decision = AnsweredDecision(
                    number=number,
                    subject=str(data.get("subject", "")),
                    asked_s=min(float(data.get("asked_s", now_s)), now_s),
                    answered_s=now_s,
                    action=data["action"],
                    successes=int(data.get("successes", 0)),
                    fallback=self._fallbacks.get(number),
                    named=data.get("named"),
                )
                self.timeline.decisions.append(decision)
            case "ended":
                self.timeline.summary = data

    def _event(self, record: Record, time_s: float) -> None:
        event = event_from_json(record.data)
        if event.state is TaskState.RUNNING:
            attempt = self._attempt(event.uid, event.attempt, time_s)
            if attempt.failure is Failure.LOST and attempt.launched_s is not None:  # adopted by a later controller
                attempt.ended_s, attempt.state, attempt.failure, attempt.message = None, TaskState.RUNNING, None, ""
            if attempt.started_s is None:
                attempt.started_s = max(time_s, attempt.launched_s or 0.0)
        elif event.state is TaskState.QUEUED:
            # The attempt before has failed and this one waits; a simulated executor has recorded that already.
            self._end(event.uid, event.attempt - 1, time_s, TaskState.FAILED, event.failure, event.message)
            self._attempt(event.uid, event.attempt, time_s)
        elif event.result is not None:
            result = event.result
            self._end(event.uid, event.attempt, time_s, event.state, result.failure, result.message)
            if (ended := self._open.get((event.uid, event.attempt))) is not None:
                ended.message, ended.values = result.message, result.values

    def _attempt(self, uid: TaskId, number: int, now_s: float, *, again: bool = False) -> TaskAttempt:
        """The attempt of that number.

        Once it has ended, ``again`` makes another: an attempt that a dying controller leaves queued keeps its number.
        """
        found = self._open.get((uid, number))
        if found is None or (again and found.ended_s is not None):
            found = self._open[uid, number] = TaskAttempt(uid, number, now_s)
            self.timeline.attempts.append(found)
        return found

    def _end(
        self, uid: TaskId, number: int, time_s: float, state: TaskState, failure: Failure | None, message: str
    ) -> None:
        attempt = self._open.get((uid, number))
        if attempt is not None and attempt.ended_s is None:
            since_s = next(t for t in (attempt.started_s, attempt.launched_s, attempt.queued_s) if t is not None)
            attempt.ended_s, attempt.state = max(time_s, since_s), state
            attempt.failure, attempt.message = failure, message

    def _lose(self, now_s: float) -> None:
        """End the attempts of a controller that died or was stopped: running ones are lost, queued ones cancelled."""
        for attempt in self._open.values():
            if attempt.ended_s is not None:
                continue
            attempt.ended_s = now_s
            attempt.state = TaskState.CANCELED
            if attempt.launched_s is not None:
                attempt.state, attempt.failure = TaskState.FAILED, Failure.LOST
                attempt.message = "its controller died, or was stopped"
