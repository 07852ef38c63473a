"""Stops a campaign whose tasks fail repeatedly, before they have used up the allocation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from rlctl.config.schema import SteerSection
from rlctl.core.errors import StoppedError
from rlctl.core.records import Record
from rlctl.core.task import Event, Failure, TaskId, TaskState, event_from_json
from rlctl.executors.local.process_task import LOGS
from rlctl.executors.naming import attempt_key, file_name


class FailureLimit:
    """Counts failed attempts by kind since the last success.

    Repeated attempts of a task count like others. A program that reports a diverged simulation works, which resets
    the counts of the other kinds; diverged attempts in a row reach the limit too. Attempts that ran at the same time as
    a lost attempt, and were lost too, have the same cause and count once. Neither cancelled tasks count nor those that
    the campaign excuses (``Campaign.excuses``). ``failed`` is the number of all failed attempts, of earlier controllers
    too.
    """

    def __init__(
        self,
        limits: SteerSection,
        run: Path,
        work: Path,
        records: Iterable[Record],
        excuses: Callable[[Event], bool] = lambda event: False,
    ) -> None:
        """Start without failures; ``records`` of earlier controllers show whether any task has succeeded."""
        self._excuses = excuses
        self.failed = 0
        self.last: Failure | None = None
        self._limits, self._run, self._logs = limits, run, work / LOGS
        self._succeeded = False
        self._lost_s = -1.0
        self._counts: Counter[Failure] = Counter()
        self._messages: dict[Failure, str] = {}
        self._began_s: dict[TaskId, float] = {}
        for record in records:
            if record.kind == "event":
                self.note(event_from_json(record.data))
        self._forget()

    def note(self, event: Event) -> None:
        """Count a change of a task's state."""
        failure, message, attempt = event.failure, event.message, event.attempt - 1
        if event.result is not None:
            failure, message, attempt = event.result.failure, event.result.message, event.attempt
        if event.state is TaskState.RUNNING and event.progress is None:
            self._began_s[event.uid] = event.time_s
        elif event.result is not None and self._excuses(event):
            self._began_s.pop(event.uid, None)
        elif failure is not None:
            self.failed, self.last = self.failed + 1, failure
            began_s = self._began_s.pop(event.uid, event.time_s)
            if failure is Failure.DIVERGED:
                diverged = self._counts[failure]
                self._note_success()
                self._counts[failure] = diverged
            if failure is not Failure.LOST or began_s >= self._lost_s:
                self._counts[failure] += 1
                self._messages[failure] = self._describe(event.uid, attempt, message)
                self._lost_s = event.time_s if failure is Failure.LOST else self._lost_s
        elif event.state.final:
            self._began_s.pop(event.uid, None)
            if event.state is TaskState.DONE:
                self._note_success()

    def check(self) -> None:
        """Raise StoppedError if the limit is reached; the message names the failure and its log."""
        limit, first = self._limits.stop_after_failures, self._limits.stop_after_first_failures
        if limit is None:
            return
        limit = limit if self._succeeded or first is None else min(limit, first)
        for failure, count in self._counts.items():
            if count >= limit:
                never = "" if self._succeeded else ", and no task has ever succeeded"
                key = "stop_after_failures" if self._succeeded or first is None else "stop_after_first_failures"
                raise StoppedError(
                    f"{self._run}: stopped after {count} failures in a row ({failure}){never}; the last one: "
                    f"{self._messages[failure]}; correct the cause, then resume (limit: steer.{key})"
                )

    def _note_success(self) -> None:
        self._forget()
        self._succeeded = True

    def _forget(self) -> None:
        self._counts.clear()
        self._messages.clear()
        self._lost_s = -1.0

    def _describe(self, uid: TaskId, attempt: int, message: str) -> str:
        log = self._logs / f"{file_name(attempt_key(uid, attempt))}.err"
        text = f"{uid}: {message}" if message else str(uid)
        return f"{text} (see {log})" if log.exists() and log.stat().st_size else text
