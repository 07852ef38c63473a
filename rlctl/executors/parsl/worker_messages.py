"""What the controller and its worker agents send each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlctl.core.task import Failure
from rlctl.executors.functions import worker
from rlctl.executors.parsl.options import ParslOptions

STOPPED, ENDED = b"S", b"X"
"""Answers besides those of ``rlctl.executors.functions.worker``: stopped on request; how a program ended, in JSON."""


@dataclass(frozen=True, slots=True)
class Session:
    """What all attempts of one controller have in common; workers read it from a file.

    Attributes:
        workdir: working folder of programs and workers.
        folder: of the backend, within it.
        poll_s: how often a busy worker reads the control file.
        ours: whether the managers were started for this controller, and end with it.
        masters: whether each worker is the master of a block of several hosts.
        paths: module search path of functions.
        initializer: first message to each warm worker.
    """

    token: str
    workdir: Path
    folder: Path
    poll_s: float
    ours: bool
    masters: bool
    paths: Sequence[str]
    initializer: bytes | None
    options: ParslOptions


def session_file(folder: Path, token: str) -> Path:
    """Where a controller leaves its ``Session``."""
    return folder / f"session-{token}"


def failure(kind: Failure, message: str) -> bytes:
    """The answer of an attempt that failed."""
    return worker.FAILURE + json.dumps([kind.value, message]).encode()
