"""How processes are started: on this machine, or wherever another backend has its own way."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.application import Application, ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome, BackendEvent, NodesChanged
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.process_task import LOGS, ProcessTask
from rlctl.executors.node_share import Allocation, core_numbers
from rlctl.system.cores import affinity, usable_cores
from rlctl.system.devices import visible_devices, without_masks
from rlctl.system.mpi import clean_environment


class Site(Protocol):
    """Where a ``LocalBackend`` starts processes. Subclass it: what has a default here need not be written.

    Attributes:
        bare: the environment of all programs, before that of their application.
        group: see ``Backend``.
    """

    bare: Mapping[str, str]
    group: Callable[[int], int] | None = None

    def open(self) -> None:
        """Take the machine; raises LaunchError if it cannot be had."""
        return

    def begin(self, running: Collection[str]) -> None:
        """Begin to watch the machine, after ``open``; the attempts with these keys were found running."""
        return

    def close(self) -> None:
        """Release the machine; all attempts have exited."""
        return

    def nodes(self) -> NodesChanged:
        """See ``Backend``."""
        return NodesChanged()

    def resize(self, nodes: int) -> None:
        """See ``Backend``."""
        return

    def describe(self, allocation: Allocation) -> Mapping[str, Any]:
        """See ``Backend``."""
        return {}

    def accepts(self, allocation: Allocation) -> bool:
        """Whether all nodes of an allocation can be used now; otherwise the attempt is reported as stopped."""
        return True

    def exited(self, attempt: Attempt, outcome: AttemptOutcome) -> Sequence[BackendEvent]:
        """Called when an attempt has exited; what it returns is reported before."""
        return ()

    def check(self, spec: TaskSpec) -> None:
        """Accept a program at submission; raises LaunchError if it can never run here."""

    def cores(self, allocation: Allocation) -> list[int]:
        """Numbers of the cores of an allocation, as the system has them."""

    def gpus(self, allocation: Allocation) -> Mapping[str, str]:
        """Variables that show a program the GPUs of its allocation."""

    def program(self, attempt: Attempt, scratch: Path) -> ProcessTask:
        """An attempt of a program, not started yet."""

    def worker(self, node: int, mark: str, environment: Mapping[str, str], scratch: Path) -> Worker:
        """Start a worker on a node, or raise OSError; ``mark``, by which it is found, is in its environment too."""


class ThisMachine(Site):
    """Processes on this machine.

    Core i of node n is the core n * cores + i of those that this process may use; GPUs likewise. Where it may use fewer
    cores than it may run on, as under a quota, which ones is the system's choice: others who have a quota here would
    take the first ones too.

    Args:
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
        applications: Mapping[str, Application] | None = None,
        *,
        oversubscribe: bool = False,
        in_place: bool = False,
        initializer: bytes | None = None,
        first_node: int = 0,
    ) -> None:
        if not oversubscribe:
            require_machine(capacity, first_node)
        self.bare: Mapping[str, str] = without_masks(clean_environment(os.environ))
        self._environments = ProgramEnvironments(self.bare, applications)
        self._capacity, self._first_node = capacity, first_node
        self._workdir, self._in_place, self._initializer = workdir, in_place, initializer
        self._cores, self._gpus = affinity(), visible_devices(os.environ)
        self._pins = usable_cores()[0] == len(self._cores)

    def check(self, spec: TaskSpec) -> None:
        """See ``Site``."""
        self._environments.check(spec)

    def cores(self, allocation: Allocation) -> list[int]:
        """See ``Site``; where there are fewer than were allocated, some stand for several."""
        if not self._pins:
            return self._cores
        first, width, here = self._first_node, self._capacity.cores, self._cores
        numbers = [(first + share.node) * width + core for share in allocation for core in core_numbers(share.cores)]
        return sorted({here[number % len(here)] for number in numbers})

    def gpus(self, allocation: Allocation) -> Mapping[str, str]:
        """See ``Site``."""
        first, width = self._first_node, self._capacity.gpus
        return self._gpus.variables_for(
            (first + share.node) * width + device for share in allocation for device, _ in share.gpus
        )

    def program(self, attempt: Attempt, scratch: Path) -> ProcessTask:
        """See ``Site``."""
        return ProcessTask(attempt, self._workdir, scratch, self._environments)

    def worker(self, node: int, mark: str, environment: Mapping[str, str], scratch: Path) -> Worker:
        """See ``Site``."""
        log = workdir = None
        if not self._in_place:
            (self._workdir / LOGS).mkdir(exist_ok=True)
            workdir, log = self._workdir, self._workdir / LOGS / "calls.out"
        return Worker(environment, scratch, mark, workdir, log, self._initializer)


def require_machine(capacity: Capacity, first_node: int = 0) -> None:
    """Raise LaunchError if this process may not use as many cores and GPUs, beside ``first_node`` nodes of others."""
    nodes, (usable, why), gpus = first_node + capacity.nodes, usable_cores(), visible_devices(os.environ)
    if nodes * capacity.cores > usable:
        raise LaunchError(
            f"{nodes * capacity.cores} cores are asked for, this process may use {usable}{why and f' ({why})'}: "
            "lower machine.cores, or run where there are more",
            ("machine", "cores"),
        )
    if gpus.names is not None and nodes * capacity.gpus > len(gpus.names):
        raise LaunchError(
            f"{nodes * capacity.gpus} GPUs are asked for, {gpus.source} allows {len(gpus.names)}: "
            "lower machine.gpus, or make more visible",
            ("machine", "gpus"),
        )
