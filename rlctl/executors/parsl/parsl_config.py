"""Loads an executor of Parsl as the user describes it: a ``parsl.Config`` or an executor, in a file or a module."""

from __future__ import annotations

import importlib
import logging
import runpy
from pathlib import Path
from typing import Any

from rlctl.core.errors import ConfigError, described

SLOW_S = 30
"""Seconds; it is worth a warning if a lost node is noticed later."""

_KEY = ("executor", "options", "config")

log = logging.getLogger(__name__)


def load_executor(config: str, label: str | None) -> Any:
    """Load the ``HighThroughputExecutor`` that ``config`` names; it is not started.

    Args:
        config: ``path/to/file.py``, ``path/to/file.py:name`` or ``package.module:name``; in a file the name is
            ``config`` if none is given. It is a ``parsl.Config``, an executor, or a function that returns one of them.
        label: which executor of several.

    Raises:
        ConfigError: Parsl is not installed, there is no such thing, or it is something else.
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
