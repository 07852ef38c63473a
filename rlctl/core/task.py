"""Tasks: their specification, their states, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from rlctl.core import spec_values
from rlctl.core.errors import RequestError, brief

TaskId = NewType("TaskId", str)
"""Names a task; unique within its campaign."""


class TaskState(StrEnum):
    """Life of a task; the last three are final and sticky."""

    NEW = "new"
    QUEUED = "queued"
    HELD = "held"
    SCHEDULED = "scheduled"
    LAUNCHING = "launching"
    RUNNING = "running"
    SUSPENDED = "suspended"
    PREEMPTED = "preempted"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow.

        >>> TaskState.DONE.final, TaskState.PREEMPTED.final
        (True, False)
        """
        return self in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELED)


class Failure(StrEnum):
    """Why a task ended as FAILED."""

    EXIT = "exit"  # the program ended with a code other than 0
    SIGNAL = "signal"  # the program was killed
    TIMEOUT = "timeout"  # it ran past its walltime and was stopped
    GARBAGE = "garbage"  # it ended well, but its result cannot be read
    DIVERGED = "diverged"  # it says itself that the solution blew up
    LAUNCH = "launch"  # it could not be started
    LOST = "lost"  # its machine or its controller went away
    MEMORY = "memory"  # it used more memory than it had asked for
    OUTPUT = "output"  # it wrote more to its standard output or error than is kept


@dataclass(frozen=True, slots=True)
class Resources:
    """What one task occupies while it runs.

    Attributes:
        gpus_per_rank: below 1, ranks may share a device.
        memory_per_rank_mb: MiB; a task that uses more is stopped. None: not limited and not booked.
        nodes: spread the ranks evenly over exactly so many nodes; None: on as few as they fit on.

    Numbers of NumPy become those of Python.

    Raises:
        RequestError: a number is none, or too small to be meant.
    """

    ranks: int = 1
    cores_per_rank: int = 1
    gpus_per_rank: float = 0.0
    memory_per_rank_mb: int | None = None
    nodes: int | None = None

    def __post_init__(self) -> None:
        _RESOURCES.convert(self, lambda: "resources")

    @property
    def cores(self) -> int:
        """Cores over all ranks."""
        return self.ranks * self.cores_per_rank

    @property
    def gpus(self) -> float:
        """GPUs over all ranks; fractions share a device."""
        return self.ranks * self.gpus_per_rank


_RESOURCES = spec_values.Fields(
    {
        "ranks": (1, spec_values.count_from_one),
        "cores_per_rank": (1, spec_values.count_from_one),
        "gpus_per_rank": (0.0, spec_values.finite),
        "memory_per_rank_mb": (None, lambda value: spec_values.count(value) or None),
        "nodes": (None, spec_values.count_from_one),
    }
)

ONE_CORE = Resources()


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One unit of work: a program with arguments (an *exec*) or a function (a *call*).

    Attributes:
        uid: unique within the campaign, chosen by the caller: the key that makes submission idempotent.
        executable: program of an exec; ``"python"`` means the interpreter that runs rlctl.
        arguments: its arguments; paths are relative to the run folder, which is the working directory.
        function: ``"package.module:name"`` of a call, run as ``name(**parameters)`` in a warm worker.
        parameters: the scientific inputs, JSON values only; what a task model reads in place of running.
        resources: what the task occupies.
        walltime_s: seconds after which it is stopped and fails with ``Failure.TIMEOUT``; None: never.
        priority: larger starts first; equal ones in order of submission.
        retries: how often a failed attempt is repeated before the task is FAILED.
        result_file: JSON file that an exec leaves, relative to the run folder; None: no result is read.
        progress_file: file to which an exec appends a JSON object a line while it runs, relative to the run folder;
            the campaign gets the newest one. None: it does not report.
        failure_codes: exit codes of the program that mean a certain failure, e.g. ``((3, Failure.DIVERGED),)``.
        environment: variables of the program, which win over those of its application and of rlctl, except for masks of
            GPUs.
        application: name of the environment that an exec needs, as the executor's configuration describes it (see
            ``rlctl.executors.application``); None: that of rlctl itself.
        pool: where it is to run, if the executor has several pools; None: where there is room. An executor that has
            none ignores it.
        wrapper: command that starts the program, which follows as its arguments, with its launcher before it; it runs
            once, whatever the number of ranks, in the environment of the program, but for variables of an application
            or task that begin with ``LD_`` or ``PYTHON``: ``RLCTL_PROGRAM_`` stands before these. Its exit code is
            that of the task; signals reach it as well as the program. ``"python"`` as its first word means the
            interpreter of rlctl; of ``python -P -m MODULE``, an executor may call ``main(arguments)`` in a process that
            it has forked.

    What can only mean one thing is converted: numbers of NumPy, paths, numbers among arguments and variables (a program
    gets their text), arrays among parameters (lists), other sequences where a tuple belongs, an infinite walltime.

    Raises:
        RequestError: any other value of a wrong type, or one that no program can be given.
    """

    uid: TaskId
    executable: str | None = None
    arguments: tuple[str, ...] = ()
    function: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = ONE_CORE
    walltime_s: float | None = None
    priority: float = 0.0
    retries: int = 0
    result_file: str | None = None
    progress_file: str | None = None
    failure_codes: tuple[tuple[int, Failure], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    application: str | None = None
    pool: str | None = None
    wrapper: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _SPEC.convert(self, lambda: f"task {brief(self.uid)}")
        if (self.executable is None) == (self.function is None):
            raise RequestError(f"task {self.uid}: give either an executable or a function")


def _failure_codes(value: Any) -> tuple[tuple[int, Failure], ...]:
    return tuple((spec_values.count(code), Failure(failure)) for code, failure in spec_values.sequence(value))


def _resources(value: Any) -> Resources:
    if not isinstance(value, Resources):
        raise spec_values.Unfit("should be Resources")
    return value


_REQUIRED = object()
_SPEC = spec_values.Fields(
    {
        "uid": (_REQUIRED, spec_values.task_name),
        "executable": (None, spec_values.filled_text),
        "arguments": ((), spec_values.arguments),
        "function": (None, spec_values.function_name),
        "parameters": (_REQUIRED, spec_values.parameters),
        "resources": (ONE_CORE, _resources),
        "walltime_s": (None, spec_values.walltime),
        "priority": (0.0, spec_values.number),
        "retries": (0, spec_values.count),
        "result_file": (None, spec_values.filled_text),
        "progress_file": (None, spec_values.filled_text),
        "failure_codes": ((), _failure_codes),
        "environment": (_REQUIRED, spec_values.environment),
        "application": (None, spec_values.filled_text),
        "pool": (None, spec_values.filled_text),
        "wrapper": ((), spec_values.arguments),
    }
)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What came of a task in a final state.

    Attributes:
        values: what the program wrote or the function returned; empty unless DONE.
        failure: set if and only if the state is FAILED.
        message: one line for people.
        started_s: when it began, seconds on the executor's clock.
        ended_s: when it ended; ``started_s`` if it never began.
        cores: cores that it occupied in between.
    """

    uid: TaskId
    state: TaskState
    attempt: int
    values: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    cores: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a task's state, or of its progress, as an executor reports it.

    Attributes:
        time_s: seconds on the executor's clock.
        progress: what a task that goes on running reports of itself; None: its state has changed.
        result: set if and only if ``state`` is final.
        failure: why the attempt before failed, where the task is QUEUED for another one.
        message: likewise, one line for people.
        seq: 1, 2, 3 ... in the order in which the executor reports; what ``events(since)`` counts by.
    """

    time_s: float
    uid: TaskId
    state: TaskState
    attempt: int = 1
    result: TaskResult | None = None
    seq: int = 0
    progress: Mapping[str, Any] | None = None
    failure: Failure | None = None
    message: str = ""


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
        ended = data["result"]
        why = Failure(ended["failure"]) if ended["failure"] else None
        result = TaskResult(uid, state, attempt, **{**ended, "failure": why})
    progress = data.get("progress")
    failure = Failure(data["failure"]) if "failure" in data else None
    return Event(
        data["time_s"], uid, state, attempt, result, progress=progress, failure=failure, message=data.get("message", "")
    )
