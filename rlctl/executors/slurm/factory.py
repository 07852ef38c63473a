"""The Slurm executor in configurations."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskSpec
from rlctl.executors.factory import BackendFactory
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.slurm.backend import slurm_backend
from rlctl.executors.slurm.commands import current_job, run_command
from rlctl.executors.slurm.options import SlurmOptions


class Slurm(BackendFactory):
    """Tasks as steps of a Slurm job; see ``BackendFactory``."""

    Options = SlurmOptions
    options: SlurmOptions
    portable = SlurmOptions.portable
    actor_options: ClassVar[Mapping[str, Any]] = {"lease_s": 0.0}

    def check(self, capacity: Capacity) -> None:
        """Raise LaunchError if Slurm is not here or does not answer, or there is neither a job nor ``submit``."""
        capacity.require_equal("the slurm executor")
        for program in ("srun", "squeue", "sinfo", "scontrol"):
            if shutil.which(program) is None:
                raise LaunchError(f"there is no {program}: run where Slurm is, or choose another executor")
        if current_job() is None and self.options.submit is None:
            raise LaunchError(
                "this is no job of Slurm: start it by sbatch or salloc, or say here what to ask for",
                ("executor", "options", "submit"),
            )
        run_command("sinfo", "--noheader", "--format=%P")

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Notes on what is not installed on this machine; the nodes may have it."""
        return self.options.check_elsewhere(specs)

    def command(self, spec: TaskSpec) -> list[str]:
        """A program as a step, without what follows from the allocation."""
        alone = replace(spec, resources=Resources())
        return ["srun", f"--ntasks={spec.resources.ranks}", *self.options.command(alone)]

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> LocalBackend:
        """The backend, which takes the job's nodes or submits jobs when it is opened."""
        return slurm_backend(capacity, workdir, self.options, pool=pool, first_node=first_node)
