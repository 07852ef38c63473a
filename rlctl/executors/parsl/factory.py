"""The Parsl executor as configurations name it: a ``parsl.Config`` or an executor, in a file or a module."""

from __future__ import annotations

import importlib
import logging
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import ConfigError, LaunchError, described
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.factory import BackendFactory
from rlctl.executors.parsl.backend import ParslBackend
from rlctl.executors.parsl.blocks import Blocks
from rlctl.executors.parsl.options import ParslOptions

SLOW_S = 30
"""Seconds; it is worth a warning if a lost node is noticed later."""

_KEY = ("executor", "options", "config")

log = logging.getLogger(__name__)


class Parsl(BackendFactory):
    """Tasks on workers of Parsl; see ``BackendFactory``."""

    Options = ParslOptions
    options: ParslOptions
    portable = ParslOptions.portable

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if not self.options.config:
            raise ConfigError("required", ("executor", "options", "config"))

    def check(self, capacity: Capacity) -> None:
        """Check that there is such an executor of Parsl, and that it can have enough workers."""
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

    def command(self, spec: TaskSpec) -> list[str]:
        """See ``BackendFactory``."""
        return self.options.command(spec)

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """See ``BackendFactory``."""
        return self.options.check_elsewhere(specs)


def load_executor(config: str, label: str | None) -> Any:
    """Load the ``HighThroughputExecutor`` that ``ParslOptions`` describe; it is not started.

    The object in the file or module may also be a function that returns an executor or a ``parsl.Config``.
    """
    try:
        from parsl.executors import HighThroughputExecutor
    except ImportError as error:
        raise ConfigError(
            f"Parsl cannot be imported ({error}): install it with `pip install 'rlctl[parsl]'`", ("executor", "name")
        ) from error
    found = _load_object(config)
    if callable(found) and not hasattr(found, "submit"):
        found = found()
    executors = {str(getattr(each, "label", "?")): each for each in getattr(found, "executors", [found])}
    if len(executors) != 1 if label is None else label not in executors:
        problem = "has several executors, choose one by executor.options.label"
        problem = problem if label is None else f"has no executor {label!r}"
        raise ConfigError(f"{config}: {problem}; there are: {', '.join(executors)}", ("executor", "options", "label"))
    executor = next(iter(executors.values())) if label is None else executors[label]
    if not isinstance(executor, HighThroughputExecutor):
        raise ConfigError(f"{config}: {type(executor).__name__} is no HighThroughputExecutor of Parsl", _KEY)
    if executor.enable_mpi_mode:
        raise ConfigError(
            f"{config}: an MPIExecutor starts MPI programs by itself; give a HighThroughputExecutor with "
            "max_workers_per_node=1 and SimpleLauncher, whose programs rlctl starts by mpiexec",
            _KEY,
        )
    return executor


def warn_if_slow(executor: Any) -> None:
    """Warn of heartbeats that make an executor slow to notice losses."""
    if executor.heartbeat_period > 5 or executor.heartbeat_threshold > SLOW_S:
        log.warning(
            "Parsl executor %s: a killed worker is noticed after up to %s s, a lost node after up to %s s: set "
            "heartbeat_period=1 to 5 and heartbeat_threshold=5 to %s",
            executor.label,
            executor.heartbeat_period,
            executor.heartbeat_threshold,
            SLOW_S,
        )


def _load_object(config: str) -> Any:
    place, colon, name = config.rpartition(":")
    if not colon or place.endswith(":") or "/" in name or "\\" in name:
        place, name = config, ""
    name = name or "config"
    try:
        if place.endswith(".py"):
            return runpy.run_path(str(Path(place).expanduser()), run_name="parsl_config")[name]
        return getattr(importlib.import_module(place), name)
    except (KeyError, AttributeError) as error:
        raise ConfigError(f"{config}: it has no {name!r}: give a name after a colon", _KEY) from error
    except Exception as error:
        raise ConfigError(f"{config}: cannot be loaded: {described(error)}", _KEY) from error
