"""Options that all executors with programs share, parsed once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlctl.config.validation import check_options
from rlctl.core.errors import LaunchError
from rlctl.core.task import TaskSpec
from rlctl.executors.application import Application, ProgramEnvironments
from rlctl.system.mpi import clean_environment


class SharedOptions(BaseModel):
    """``executor.options`` of every executor that starts programs.

    Attributes:
        lease_s: how long programs go on when the controller has died. ``--resume`` within that time takes them over.
        backfill: whether tasks may overtake one that does not fit yet.
        output_mb: a task that writes more than so many MiB to its standard output or error is stopped; null: never.
        applications: environments of programs, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lease_s: float = Field(default=300.0, ge=0.0, le=1e7)
    backfill: bool = False
    output_mb: float | None = Field(default=1024.0, gt=0.0)
    applications: dict[str, Application] = Field(default_factory=dict)

    @classmethod
    def portable(cls, options: Mapping[str, Any], resolve: Callable[[str], Path]) -> Mapping[str, Any]:
        """The options with absolute paths; see ``rlctl.executors.factory.BackendFactory``."""
        checked = check_options(cls, options, "executor.options")
        applications = dict(options.get("applications", {}))
        for name, application in checked.applications.items():
            for key, path in (("venv", application.venv), ("mpiexec", application.mpiexec)):
                if path is not None and (key == "venv" or os.sep in path):
                    path = os.path.expandvars(os.path.expanduser(path))
                    applications[name] = {**applications[name], key: str(resolve(path).absolute())}
        return {**options, "applications": applications} if applications else options

    def check_installed(self, specs: Sequence[TaskSpec]) -> None:
        """Raise LaunchError if an application, or what these tasks name, is not on this machine."""
        ProgramEnvironments(clean_environment(os.environ), self.applications).check_installed(specs)

    def command(self, spec: TaskSpec) -> list[str]:
        """A program under mpiexec, if it has several ranks."""
        environments = ProgramEnvironments(clean_environment(os.environ), self.applications)
        ranks = spec.resources.ranks
        return [*(environments.mpiexec(spec, ranks) if ranks > 1 else ()), *environments.command(spec)]

    def check_elsewhere(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Notes on what these tasks need and this machine lacks; the machines that run them may have it."""
        try:
            self.check_installed(specs)
        except LaunchError as error:
            return [f"{error}; that is so on this machine, and whether the nodes have it shows only there"]
        return []
