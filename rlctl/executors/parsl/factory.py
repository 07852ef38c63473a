"""The Parsl executor as configurations name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.config.validation import check_options
from rlctl.core.errors import ConfigError, LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.factory import BackendFactory
from rlctl.executors.parsl.backend import ParslBackend
from rlctl.executors.parsl.blocks import Blocks
from rlctl.executors.parsl.options import ParslOptions
from rlctl.executors.parsl.parsl_config import load_executor, warn_if_slow


class Parsl(BackendFactory):
    """Tasks on workers of Parsl; see ``BackendFactory``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Parse the options.

        Raises:
            ConfigError: one is unknown, or has a value that cannot be used.
        """
        self.options = check_options(ParslOptions, options, "executor.options")
        if not self.options.config:
            raise ConfigError("required", ("executor", "options", "config"))
        self.backfill = self.options.backfill

    portable = ParslOptions.portable

    def check(self, capacity: Capacity) -> None:
        """Check that Parsl can have enough workers.

        Raises:
            ConfigError: there is no such executor of Parsl.
            LaunchError: it can never have so many workers.
        """
        capacity.require_equal("the parsl executor")
        executor = load_executor(self.options.config, self.options.label)
        warn_if_slow(executor)
        provider, most = executor.provider, executor.max_workers_per_node
        hosts = (provider.init_blocks or 1) * (1 if Blocks(executor).masters else provider.nodes_per_block)
        wanted = capacity.nodes * self.options.workers_per_node
        if most != float("inf") and wanted > most * hosts:
            raise LaunchError(
                f"{wanted} workers are asked for, {self.options.config} starts {most} on each of {hosts} nodes: "
                "lower machine.nodes, or start more",
                ("machine", "nodes"),
            )

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> ParslBackend:
        """See ``BackendFactory``."""
        executor = load_executor(self.options.config, self.options.label)
        return ParslBackend(executor, capacity, workdir, self.options, pool=pool)

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """See ``BackendFactory``."""
        return self.options.check_elsewhere(specs)
