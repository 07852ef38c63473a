"""A campaign's records as a timeline: which attempt of which task held what, from when to when, and what was decided.

The ledger, the Gantt chart, the trace and the pictures of the machine are all made from this. It is a pure function of
the records, whether they come from the journal of a real campaign or from a simulated one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import Failure, TaskId, TaskState, event_from_json

_WAITED = frozenset({"event", "time"})
"""Records that end a wait; all others are written by a controller that is at work."""


@dataclass(slots=True)
class Attempt:
    """One attempt of a task. Times are seconds on the executor's clock.

    Attributes:
        queued_s: since when it was waiting.
        launched_s: since when it held its cores; None: never.
        started_s: since when its program ran; None: not yet, or never.
        ended_s: when it let go of its cores, or left the queue; None: it still waits or runs.
        state: DONE, FAILED, CANCELED, RUNNING or QUEUED; of an attempt that will be repeated, FAILED.
        failure: why it failed; LOST if its controller died.
        cores: numbers of its cores.
        gpus: shares of GPUs by name.
        values: its result.
        parameters: its scientific inputs; those of a repeated attempt stand with the first.
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
        """Whether its time was not wasted: it is DONE, or may still be."""
        return self.state in (TaskState.DONE, TaskState.RUNNING)


@dataclass(frozen=True, slots=True)
class AnsweredDecision:
    """A decision and its answer.

    Attributes:
        asked_s: seconds on the executor's clock.
        answered_s: likewise.
        successes: units of the goal when it was asked.
        fallback: why the policy did not answer itself; None: it did.
    """

    number: int
    subject: str
    asked_s: float
    answered_s: float
    action: Any
    successes: int
    fallback: str | None = None


@dataclass(slots=True)
class Timeline:
    """What happened in a campaign.

    Attributes:
        capacity: the allocation.
        attempts: in order of submission.
        answers: in order.
        working: spans (from, to) in which the controller was at work, not waiting; disjoint, rising.
        booting: spans in which a controller was starting.
        end_s: time of the last record.
        summary: what the campaign ended with; None: it has not ended.
        braked: why its controller stopped it, and it was not resumed since; empty: it did not.
    """

    capacity: Capacity
    attempts: list[Attempt] = field(default_factory=list)
    answers: list[AnsweredDecision] = field(default_factory=list)
    working: list[tuple[float, float]] = field(default_factory=list)
    booting: list[tuple[float, float]] = field(default_factory=list)
    end_s: float = 0.0
    summary: Mapping[str, Any] | None = None
    braked: str = ""

    @property
    def charged_s(self) -> float:
        """Until when the allocation is charged: when all had stopped; of a run in progress, its last record."""
        return self.end_s if self.summary is None else float(self.summary["node_seconds"]) / self.capacity.nodes

    @classmethod
    def read(cls, records: Iterable[Record], capacity: Capacity) -> Timeline:
        """From the records of a journal, or of a ``RecordList`` that driver and simulated executor wrote to."""
        return _Reader(capacity).read(records)

    def at(self, time_s: float) -> list[Attempt]:
        """The attempts that held cores at an instant."""
        return [a for a in self.attempts if _holds(a, time_s)]


def _holds(attempt: Attempt, time_s: float) -> bool:
    if attempt.launched_s is None or attempt.launched_s > time_s:
        return False
    return attempt.ended_s is None or attempt.ended_s > time_s


class _Reader:
    def __init__(self, capacity: Capacity) -> None:
        self.timeline = Timeline(capacity)
        self._open: dict[tuple[TaskId, int], Attempt] = {}
        self._fallbacks: dict[int, str] = {}
        self._begun = False

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
            case "epoch":
                self.timeline.braked = ""
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
                # A record may be written after later things; what it tells of happened at its own time.
                self._event(record, record.time_s)
            case "fallback":
                self._fallbacks[int(data["number"])] = str(data["reason"])
            case "decision":
                number = int(data["number"])
                answer = AnsweredDecision(
                    number=number,
                    subject=str(data.get("subject", "")),
                    asked_s=min(float(data.get("asked_s", now_s)), now_s),
                    answered_s=now_s,
                    action=data["action"],
                    successes=int(data.get("successes", 0)),
                    fallback=self._fallbacks.get(number),
                )
                self.timeline.answers.append(answer)
            case "ended":
                self.timeline.summary = data

    def _event(self, record: Record, time_s: float) -> None:
        event = event_from_json(record.data)
        if event.state is TaskState.RUNNING:
            attempt = self._attempt(event.uid, event.attempt, time_s)
            if attempt.failure is Failure.LOST and attempt.launched_s is not None:  # a later controller took it over
                attempt.ended_s, attempt.state, attempt.failure, attempt.message = None, TaskState.RUNNING, None, ""
            if attempt.started_s is None:
                attempt.started_s = max(time_s, attempt.launched_s or 0.0)
        elif event.state is TaskState.QUEUED:
            # The attempt before has failed; this one waits. A simulated executor has said so already.
            self._end(event.uid, event.attempt - 1, time_s, TaskState.FAILED, event.failure, event.message)
            self._attempt(event.uid, event.attempt, time_s)
        elif event.result is not None:
            self._end(event.uid, event.attempt, time_s, event.state, event.result.failure, event.result.message)
            ended = self._latest(event.uid, event.attempt)
            if ended is not None:
                ended.message, ended.values = event.result.message, event.result.values

    def _attempt(self, uid: TaskId, number: int, now_s: float, *, again: bool = False) -> Attempt:
        """The attempt of that number; ``again``: a new one if it is over, as one is that a dead controller had queued.

        Such a one was never launched, so that the number was not used up.
        """
        found = self._open.get((uid, number))
        if found is None or (again and found.ended_s is not None):
            found = self._open[uid, number] = Attempt(uid, number, now_s)
            self.timeline.attempts.append(found)
        return found

    def _latest(self, uid: TaskId, number: int) -> Attempt | None:
        return self._open.get((uid, number))

    def _end(
        self, uid: TaskId, number: int, time_s: float, state: TaskState, failure: Failure | None, message: str
    ) -> None:
        attempt = self._open.get((uid, number))
        if attempt is not None and attempt.ended_s is None:
            since_s = next(t for t in (attempt.started_s, attempt.launched_s, attempt.queued_s) if t is not None)
            attempt.ended_s, attempt.state = max(time_s, since_s), state
            attempt.failure, attempt.message = failure, message

    def _lose(self, now_s: float) -> None:
        """A controller has died, or was stopped: what it ran is lost, what it had queued is submitted again."""
        for attempt in self._open.values():
            if attempt.ended_s is not None:
                continue
            attempt.ended_s = now_s
            if attempt.launched_s is None:
                attempt.state = TaskState.CANCELED
            else:
                attempt.state, attempt.failure = TaskState.FAILED, Failure.LOST
                attempt.message = "its controller died, or was stopped"
