"""The executor on workers of Parsl, for use in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlctl.core.machine import Capacity, Scoring
from rlctl.core.records import Recorder
from rlctl.executors.engine import Executor
from rlctl.executors.factory import PoolPlan
from rlctl.executors.parsl.backend import ParslBackend
from rlctl.executors.parsl.options import ParslOptions


class ParslExecutor(Executor):
    """An executor on a ``HighThroughputExecutor`` of Parsl; see ``rlctl.executors.Executor``."""

    def __init__(
        self,
        executor: Any,
        capacity: Capacity,
        workdir: Path,
        journal: Recorder | None = None,
        start_s: float = 0.0,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        eager: bool = True,
        scoring: Scoring | None = None,
        backfill: bool | None = None,
        options: ParslOptions | None = None,
    ) -> None:
        """Start Parsl, unless it runs already.

        Args:
            executor: Parsl's; one that runs already is used, and not shut down here.
            workdir: working directory of programs and workers, seen by all hosts; made if it is missing.
            initializer, initargs: called in each worker before its first function.
            backfill: whether tasks may overtake one that does not fit yet; None: if ``eager``.

        The others are as for ``Executor``.

        Raises:
            LaunchError: Parsl cannot be started.
        """
        first_call = None if initializer is None else (initializer, initargs)
        backend = ParslBackend(executor, capacity, workdir, options, initializer=first_call)
        plan = PoolPlan(backend, backfill=eager if backfill is None else backfill)
        super().__init__([plan], journal, start_s, eager=eager, scoring=scoring)
