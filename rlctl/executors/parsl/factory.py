"""The executor on Parsl's workers as configurations know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rlctl.config.validation import check_options
from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.event_log import Journal
from rlctl.executors.local.factory import CommonOptions
from rlctl.executors.parsl.backend import ParslExecutor, Settings
from rlctl.executors.parsl.blocks import Blocks
from rlctl.executors.parsl.source import load, look_over
from rlctl.executors.recovery import KINDS, Past


class Options(CommonOptions):
    """``executor.options`` of the executor on Parsl's workers.

    Attributes:
        config: ``path/to/file.py``, ``path/to/file.py:name`` or ``package.module:name``: a ``parsl.Config`` or one of
            Parsl's executors. Paths begin at the configuration file. In a file the name is ``config`` if none is given.
        label: which executor of several.
        workers_per_node: how many workers share what ``machine`` calls a node. With 1 a node is a worker, and a task
            has it for itself.
        lease_s: how long tasks go on when the controller has died.
        enforce_memory: whether a program that uses more memory than it asked for is stopped.
    """

    config: str
    label: str | None = None
    workers_per_node: int = Field(default=1, ge=1, le=100_000)
    lease_s: float = Field(default=60.0, ge=5.0, le=1e7)
    enforce_memory: bool = True

    @classmethod
    def portable(cls, options: Mapping[str, Any], resolve: Callable[[str], Path]) -> Mapping[str, Any]:
        """The options with absolute paths."""
        path, dot, name = str(options.get("config", "")).partition(".py")
        if not dot or (name and not name.startswith(":")):  # a module
            return super().portable(options, resolve)
        config = f"{resolve(f'{path}.py').absolute()}{name}"
        return super().portable({**options, "config": config}, resolve)


class Parsl:
    """Tasks on workers of Parsl; see ``rlctl.executors.base.ExecutorFactory``.

    Raises:
        ConfigError: unknown options.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = check_options(Options, options, "executor.options")

    portable = Options.portable

    def check(self, capacity: Capacity) -> None:
        """Refuse what is certainly less than is asked for.

        Raises:
            ConfigError: there is no such executor of Parsl.
            LaunchError: it can never have so many workers.
        """
        capacity.require_equal("the parsl executor")
        executor = load(self.options.config, self.options.label)
        look_over(executor)
        provider, most = executor.provider, executor.max_workers_per_node
        hosts = (provider.init_blocks or 1) * (1 if Blocks(executor).masters else provider.nodes_per_block)
        wanted = capacity.nodes * self.options.workers_per_node
        if most != float("inf") and wanted > most * hosts:
            raise LaunchError(
                f"{wanted} workers are asked for, {self.options.config} starts {most} on each of {hosts} nodes: "
                "lower machine.nodes, or start more",
                ("machine", "nodes"),
            )

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """What is not on this machine; the nodes may have it."""
        return self.options.check_elsewhere(specs)

    def open(self, capacity: Capacity, workdir: Path, journal: Journal, start_s: float) -> ParslExecutor:
        """Start Parsl, and find out what a former controller's workers have brought to its end."""
        options = self.options
        settings = Settings(
            workers_per_node=options.workers_per_node,
            lease_s=options.lease_s,
            memory=options.enforce_memory,
            output_mb=options.output_mb,
            applications=options.described(),
        )
        return ParslExecutor(
            load(options.config, options.label),
            capacity,
            workdir,
            journal,
            start_s,
            eager=False,
            backfill=options.backfill,
            settings=settings,
            past=Past.read(journal.records(kinds=KINDS)),
        )
