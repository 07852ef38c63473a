"""Parsl's executor as the user has described it: a ``parsl.Config``, or an executor, in a file or a module."""

from __future__ import annotations

import importlib
import logging
import runpy
from pathlib import Path
from typing import Any

from rlctl.core.errors import ConfigError

SLOW_S = 30
"""A lost node that is noticed later than that is worth a warning."""

_KEY = ("executor", "options", "config")

log = logging.getLogger(__name__)


def load(config: str, label: str | None) -> Any:
    """The ``HighThroughputExecutor`` that ``config`` means, not started.

    Args:
        config: ``path/to/file.py``, ``path/to/file.py:name`` or ``package.module:name``; in a file the name is
            ``config`` if none is given. It is a ``parsl.Config``, an executor, or a function that gives one of them.
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
    found = _found(config)
    if callable(found) and not hasattr(found, "submit"):
        found = found()
    executors = list(getattr(found, "executors", [found]))
    if label is not None:
        executors = [executor for executor in executors if getattr(executor, "label", None) == label]
    labels = ", ".join(str(getattr(executor, "label", "?")) for executor in getattr(found, "executors", [found]))
    if len(executors) != 1:
        raise ConfigError(
            f"{config}: has no executor {label!r}; there are: {labels}"
            if label is not None
            else f"{config}: has several executors, choose one by executor.options.label; there are: {labels}",
            ("executor", "options", "label"),
        )
    (executor,) = executors
    if not isinstance(executor, HighThroughputExecutor):
        raise ConfigError(f"{config}: {type(executor).__name__} is no HighThroughputExecutor of Parsl", _KEY)
    if executor.enable_mpi_mode:
        raise ConfigError(
            f"{config}: an MPIExecutor starts MPI programs by itself; give a HighThroughputExecutor with "
            "max_workers_per_node=1 and SimpleLauncher, whose programs rlctl starts by mpiexec",
            _KEY,
        )
    return executor


def look_over(executor: Any) -> None:
    """Warn of what makes an executor slow to notice losses."""
    if executor.heartbeat_period > 5 or executor.heartbeat_threshold > SLOW_S:
        log.warning(
            "Parsl executor %s: a killed worker is noticed after up to %s s, a lost node after up to %s s: set "
            "heartbeat_period=1 to 5 and heartbeat_threshold=5 to %s",
            executor.label,
            executor.heartbeat_period,
            executor.heartbeat_threshold,
            SLOW_S,
        )


def _found(config: str) -> Any:
    place, colon, name = config.rpartition(":")
    if not colon or place.endswith(":") or "/" in name or "\\" in name:
        place, name = config, ""
    try:
        if place.endswith(".py"):
            path = Path(place).expanduser()
            values = runpy.run_path(str(path), run_name="parsl_config")
            return values[name or "config"]
        return getattr(importlib.import_module(place), name or "config")
    except (KeyError, AttributeError) as error:
        missing = name or "config"
        raise ConfigError(f"{config}: it has no {missing!r}: give a name after a colon", _KEY) from error
    except Exception as error:
        raise ConfigError(f"{config}: cannot be loaded: {type(error).__name__}: {error}", _KEY) from error
