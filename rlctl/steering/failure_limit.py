"""Stops a campaign whose tasks fail again and again, before that has spent the allocation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rlctl.config.schema import SteerSection
from rlctl.core.errors import StoppedError
from rlctl.core.records import Record
from rlctl.core.task import Event, Failure, TaskId, TaskState, event_from_json
from rlctl.executors.local.process_task import LOGS
from rlctl.executors.naming import attempt_key, file_name


class FailureLimit:
    """Counts failed attempts of each kind since something succeeded last.

    Attempts that a task repeats by itself count like others. A program which says that its simulation diverged works,
    so that the other kinds begin anew; those that diverge in a row stop the campaign all the same. What ran beside an
    attempt that was lost with its machine, and was lost too, has the same cause and is not counted again. Canceled
    tasks say nothing.

    Attributes:
        failed: attempts that have failed in all, diverged ones too, those of earlier controllers as well.
        last: kind of the last of them.
    """

    def __init__(self, limits: SteerSection, run: Path, work: Path, records: Iterable[Record]) -> None:
        """Begin with no failure counted; ``records`` of earlier controllers tell whether anything ever succeeded."""
        self.failed = 0
        self.last: Failure | None = None
        self._limits, self._run, self._logs = limits, run, work / LOGS
        self._answered = False
        self._lost_s = -1.0
        self._counts: Counter[Failure] = Counter()
        self._words: dict[Failure, str] = {}
        self._began_s: dict[TaskId, float] = {}
        for record in records:
            if record.kind == "event":
                self.note(event_from_json(record.data))
        self._forget()

    def note(self, event: Event) -> None:
        """A task's state has changed."""
        failure, message, attempt = event.failure, event.message, event.attempt - 1
        if event.result is not None:
            failure, message, attempt = event.result.failure, event.result.message, event.attempt
        if event.state is TaskState.RUNNING and event.progress is None:
            self._began_s[event.uid] = event.time_s
        elif failure is not None:
            self.failed, self.last = self.failed + 1, failure
            began_s = self._began_s.pop(event.uid, event.time_s)
            if failure is Failure.DIVERGED:
                diverged = self._counts[failure]
                self._succeed()
                self._counts[failure] = diverged
            if failure is not Failure.LOST or began_s >= self._lost_s:
                self._counts[failure] += 1
                self._words[failure] = self._describe(event.uid, attempt, message)
                self._lost_s = event.time_s if failure is Failure.LOST else self._lost_s
        elif event.state.final:
            self._began_s.pop(event.uid, None)
            if event.state is TaskState.DONE:
                self._succeed()

    def check(self) -> None:
        """Stop here if a limit is reached.

        Raises:
            StoppedError: it is; the line says what failed how often, and what to do.
        """
        limit, first = self._limits.stop_after_failures, self._limits.stop_after_first_failures
        if limit is None:
            return
        limit = limit if self._answered or first is None else min(limit, first)
        for failure, count in self._counts.items():
            if count >= limit:
                never = "" if self._answered else ", and no task has ever succeeded"
                key = "stop_after_failures" if self._answered or first is None else "stop_after_first_failures"
                raise StoppedError(
                    f"{self._run}: stopped after {count} failures in a row ({failure}){never}; the last one: "
                    f"{self._words[failure]}; put that right, then resume (limit: steer.{key})"
                )

    def _succeed(self) -> None:
        self._forget()
        self._answered = True

    def _forget(self) -> None:
        self._counts.clear()
        self._words.clear()
        self._lost_s = -1.0

    def _describe(self, uid: TaskId, attempt: int, message: str) -> str:
        log = self._logs / f"{file_name(attempt_key(uid, attempt))}.err"
        said = f"{uid}: {message}" if message else str(uid)
        return f"{said} (see {log})" if log.exists() and log.stat().st_size else said
