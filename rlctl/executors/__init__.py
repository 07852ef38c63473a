"""Where tasks run: this machine, a virtual clock, and the journal that makes them durable."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlctl.core.machine import Capacity
    from rlctl.executors.engine import Executor
    from rlctl.executors.futures import ExecutorBroken, TaskFailed, TaskFuture, WorkerDied
    from rlctl.executors.local.backend import LocalExecutor
    from rlctl.executors.simulated.backend import SimulatedExecutor

__all__ = [
    "Capacity",
    "Executor",
    "ExecutorBroken",
    "LocalExecutor",
    "SimulatedExecutor",
    "TaskFailed",
    "TaskFuture",
    "WorkerDied",
]

_HOMES = {
    "Capacity": "rlctl.core.machine",
    "Executor": "rlctl.executors.engine",
    "ExecutorBroken": "rlctl.executors.futures",
    "LocalExecutor": "rlctl.executors.local.backend",
    "SimulatedExecutor": "rlctl.executors.simulated.backend",
    "TaskFailed": "rlctl.executors.futures",
    "TaskFuture": "rlctl.executors.futures",
    "WorkerDied": "rlctl.executors.futures",
}


def __getattr__(name: str) -> Any:  # loaded when used: workers and supervisors import this package too
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
