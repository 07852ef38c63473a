"""The backend as configurations name it: ``executor: {name: children}``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from child_processes.backend import ChildBackend
from rlctl.config.validation import check_options
from rlctl.core.machine import Capacity
from rlctl.executors.factory import BackendFactory


class ChildOptions(BaseModel):
    """``executor.options``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backfill: bool = False


class ChildrenFactory(BackendFactory):
    """Tasks as child processes of the controller."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.backfill = check_options(ChildOptions, options, "executor.options").backfill

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> ChildBackend:
        """Make the backend; the engine opens it."""
        return ChildBackend(capacity, workdir)
