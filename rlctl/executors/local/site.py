"""How processes are started: on this machine, or wherever another backend has its own way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.backend import Attempt
from rlctl.executors.devices import without_masks
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.inventory import Layout
from rlctl.executors.local.process_task import LOGS, ProcessTask, check_program
from rlctl.executors.mpi import clean_environment
from rlctl.executors.node_share import Allocation


class Site(Protocol):
    """Where a ``LocalBackend`` starts processes.

    Attributes:
        bare: the environment of all programs, before that of their application.
    """

    bare: Mapping[str, str]

    def check(self, spec: TaskSpec) -> None:
        """Accept a program at submission.

        Raises:
            LaunchError: it can never run here.
        """

    def cores(self, allocation: Allocation) -> list[int]:
        """Numbers of the cores of an allocation, as the system has them."""

    def gpus(self, allocation: Allocation) -> Mapping[str, str]:
        """Variables that show a program the GPUs of its allocation."""

    def program(self, attempt: Attempt, scratch: Path) -> ProcessTask:
        """An attempt of a program, not started yet."""

    def worker(self, node: int, mark: str, environment: Mapping[str, str], scratch: Path) -> Worker:
        """Start a worker on a node.

        Args:
            mark: by which it, and what it starts, is found; it is in the environment too.

        Raises:
            OSError: it cannot be started.
        """


class ThisMachine:
    """Processes on this machine.

    Args:
        workdir: working folder of all tasks.
        in_place: workers share the folder, the streams and the environment of this process.
        initializer: message that each worker begins with.
        first_node: nodes that other pools have of this machine, before the first one here.

    Raises:
        LaunchError: this process may not use as many cores or GPUs, and they are not to be oversubscribed.
    """

    def __init__(
        self,
        capacity: Capacity,
        workdir: Path,
        applications: Mapping[str, Application],
        *,
        oversubscribe: bool,
        in_place: bool = False,
        initializer: bytes | None = None,
        first_node: int = 0,
    ) -> None:
        self.bare: Mapping[str, str] = without_masks(clean_environment(os.environ))
        self._workdir, self._applications = workdir, applications
        self._in_place, self._initializer = in_place, initializer
        layout = Layout(capacity, oversubscribe=oversubscribe, first=first_node)
        self.cores, self.gpus = layout.cores, layout.gpus

    def check(self, spec: TaskSpec) -> None:
        """See ``Site``."""
        check_program(spec, self._applications, self.bare)

    def program(self, attempt: Attempt, scratch: Path) -> ProcessTask:
        """See ``Site``."""
        return ProcessTask(attempt, self._workdir, scratch, self._applications, self.bare)

    def worker(self, node: int, mark: str, environment: Mapping[str, str], scratch: Path) -> Worker:
        """See ``Site``."""
        log = workdir = None
        if not self._in_place:
            (self._workdir / LOGS).mkdir(exist_ok=True)
            workdir, log = self._workdir, self._workdir / LOGS / "calls.out"
        return Worker(environment, scratch, mark, workdir, log, self._initializer)
