"""The backend as configurations name it: ``executor: {name: children}``."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from child_processes.backend import ChildBackend
from rlctl.core.machine import Capacity
from rlctl.executors.factory import BackendFactory


class ChildOptions(BaseModel):
    """``executor.options``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backfill: bool = False


class ChildrenFactory(BackendFactory):
    """Tasks as child processes of the controller."""

    Options = ChildOptions

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> ChildBackend:
        """Make the backend; the engine opens it."""
        return ChildBackend(capacity, workdir)
