"""The options of the Parsl executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from rlctl.executors.options import SharedOptions


class ParslOptions(SharedOptions):
    """``executor.options`` of the Parsl executor.

    Attributes:
        config: required; ``path/to/file.py``, ``path/to/file.py:name`` or ``package.module:name``, where there is a
            ``parsl.Config`` or one of Parsl's executors. Paths begin at the configuration file. In a file the name is
            ``config`` if none is given.
        label: which executor of several.
        workers_per_node: how many workers share a node of ``machine``. With 1 a node is a worker, and a task has it for
            itself.
        lease_s: how long tasks go on when the controller has died.
        enforce_memory: whether a program that uses more memory than it asked for is stopped.
    """

    config: str = ""
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
        return super().portable({**options, "config": f"{resolve(f'{path}.py').absolute()}{name}"}, resolve)
