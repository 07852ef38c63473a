"""Where tasks run: this machine, a virtual clock, and the journal that makes them durable."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlctl.executors.base import Capacity, Executor
    from rlctl.executors.futures import ExecutorBroken, TaskFailed, TaskFuture, WorkerDied
    from rlctl.executors.local import LocalExecutor
    from rlctl.executors.simulated import SimulatedExecutor

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
    "Capacity": "base",
    "Executor": "base",
    "ExecutorBroken": "futures",
    "LocalExecutor": "local",
    "SimulatedExecutor": "simulated",
    "TaskFailed": "futures",
    "TaskFuture": "futures",
    "WorkerDied": "futures",
}


def __getattr__(name: str) -> Any:  # loaded when used: workers and supervisors import this package too
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
