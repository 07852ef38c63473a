"""What the controller and its worker agents send each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlctl.core.task import Failure, Resources, TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.functions import worker
from rlctl.executors.parsl.control_file import FOLDER

STOPPED, ENDED = b"S", b"X"
"""Answers besides those of ``rlctl.executors.functions.worker``: stopped on request; how a program ended, in JSON."""


@dataclass(frozen=True, slots=True)
class Session:
    """What all tasks of one controller have in common; workers read it from a file.

    Attributes:
        lease_s: how long tasks go on when the controller is silent.
        poll_s: how often a busy worker reads the control file.
        ours: whether the managers were started for this controller, and end with it.
        masters: whether each worker is the master of a block of several hosts.
        paths: module search path of functions.
        initializer: first message to each warm worker.
    """

    token: str
    lease_s: float
    poll_s: float
    ours: bool
    masters: bool
    paths: Sequence[str]
    initializer: bytes | None
    applications: Mapping[str, Application]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A function to call; ``message`` is for a warm worker."""

    key: str
    message: bytes
    walltime_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    """A program to run.

    Attributes:
        gpus: numbers of devices of the node.
        limits: ``walltime_s``, ``memory_mb`` and ``output_mb``, as the supervisor enforces them.
    """

    key: str
    spec: TaskSpec
    need: Resources
    attempt: int
    gpus: Sequence[int] = ()
    limits: Mapping[str, float | None] = field(default_factory=dict)


def session_file(workdir: Path, token: str) -> Path:
    """Where a controller leaves its ``Session``."""
    return workdir / FOLDER / f"session-{token}"


def failure(kind: Failure, message: str) -> bytes:
    """The answer of a task that failed."""
    return worker.FAILURE + json.dumps([kind.value, message]).encode()
