"""The local executor as configurations know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.factory import BackendFactory
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.site import require_machine


class Local(BackendFactory):
    """Tasks as processes on this machine; see ``BackendFactory``."""

    Options = LocalOptions
    options: LocalOptions
    portable = LocalOptions.portable
    actor_options: ClassVar[Mapping[str, Any]] = {"lease_s": 0.0, "pin": False}

    def check(self, capacity: Capacity) -> None:
        """Raise LaunchError if this process may not use as many cores and GPUs."""
        capacity.require_equal("the local executor")
        if not self.options.oversubscribe:
            require_machine(capacity)

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Raise LaunchError if something that tasks name is not on this machine."""
        self.options.check_installed(specs)
        return []

    def command(self, spec: TaskSpec) -> list[str]:
        """See ``BackendFactory``."""
        return self.options.command(spec)

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> LocalBackend:
        """See ``BackendFactory``."""
        return LocalBackend(capacity, workdir, self.options, pool=pool, first_node=first_node)
