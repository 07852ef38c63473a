"""The executor ``local``: what stands under that name in the entry points ``rlctl.executors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from rlctl.config import check_options
from rlctl.executors.base import Capacity
from rlctl.executors.local import LocalExecutor
from rlctl.executors.slots import machine_slots

if TYPE_CHECKING:
    from rlctl.driver import Recorder


class Options(BaseModel):
    """``executor.options`` of the configuration; there is nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Local:
    """Tasks as processes on this machine; see ``rlctl.executors.base.ExecutorFactory``.

    Raises:
        ConfigError: unknown options.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(Options, options, "executor.options")

    def check(self, capacity: Capacity) -> None:
        """Refuse more cores or GPUs than this process may use.

        Raises:
            LaunchError: this machine has less.
        """
        machine_slots(capacity)

    def open(self, capacity: Capacity, workdir: Path, journal: Recorder, start_s: float) -> LocalExecutor:
        """Take the machine."""
        return LocalExecutor(capacity, workdir=workdir, journal=journal, start_s=start_s)
