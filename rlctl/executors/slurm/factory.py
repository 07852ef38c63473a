"""The Slurm executor as configurations know it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlctl.config.validation import check_options
from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.event_log import Journal
from rlctl.executors.local.backend import Settings
from rlctl.executors.local.factory import CommonOptions
from rlctl.executors.recovery import KINDS, Past
from rlctl.executors.sharing import Share
from rlctl.executors.slurm.allocation import Request, own_job
from rlctl.executors.slurm.backend import SlurmExecutor, SlurmSettings
from rlctl.executors.slurm.commands import ask


class SubmitOptions(BaseModel):
    """How to ask for the allocation, where rlctl does not run in one already.

    Attributes:
        time_limit: of each job, as ``sbatch --time`` has it; another job follows as long as the campaign goes on.
        arguments: further ones of ``sbatch``, e.g. ``[--partition=gpu, --account=abc]``.
        abandoned_s: the job ends by itself when no controller has shown itself for so long.
        through: by which way; ``psij`` needs PSI/J, which is not installed with rlctl.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_limit: str = "1:00:00"
    arguments: tuple[str, ...] = ()
    abandoned_s: float = Field(default=900.0, ge=60.0, le=1e7)
    through: Literal["sbatch", "psij"] = "sbatch"


class Options(CommonOptions):
    """``executor.options`` of the Slurm executor; those of all executors with programs come on top.

    Attributes:
        submit: how to ask for the allocation; not used inside a job, whose nodes are taken.
        mpi: as ``srun --mpi`` has it; null: ``pmix`` for Open MPI, ``pmi2`` for MPICH and its kin.
        arguments: further ones of every ``srun``.
        poll_s: seconds between two looks at the nodes and the time limit.
        warning_s: so long before the end of the job tasks are stopped, to be run again in the next one.
    """

    submit: SubmitOptions | None = None
    mpi: str | None = None
    arguments: tuple[str, ...] = ()
    poll_s: float = Field(default=10.0, ge=0.1, le=3600.0)
    warning_s: float = Field(default=60.0, ge=1.0, le=86_400.0)


class Slurm:
    """Tasks as steps of a Slurm job; see ``rlctl.executors.base.ExecutorFactory``.

    Raises:
        ConfigError: unknown options.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = check_options(Options, options, "executor.options")

    portable = Options.portable

    def check(self, capacity: Capacity) -> None:
        """Refuse to begin where there is no Slurm, or no job and no word on how to get one.

        Raises:
            LaunchError: so it is.
        """
        capacity.require_equal("the slurm executor")
        for program in ("srun", "squeue", "sinfo", "scontrol"):
            if shutil.which(program) is None:
                raise LaunchError(f"there is no {program}: run where Slurm is, or choose another executor")
        if own_job() is None and self.options.submit is None:
            raise LaunchError(
                "this is no job of Slurm: start it by sbatch or salloc, or say here what to ask for",
                ("executor", "options", "submit"),
            )
        ask("sinfo", "--noheader", "--format=%P")  # whether anybody answers

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """What is not on this machine; the nodes may have it."""
        return self.options.check_elsewhere(specs)

    def open(
        self, capacity: Capacity, workdir: Path, journal: Journal, start_s: float, share: Share | None = None
    ) -> SlurmExecutor:
        """Take the job's nodes, or ask for a job."""
        options = self.options
        submit = options.submit
        request = None
        if own_job() is None and submit is not None:
            request = Request(submit.time_limit, submit.arguments, submit.abandoned_s, submit.through)
        return SlurmExecutor(
            capacity,
            workdir,
            journal,
            start_s,
            backfill=options.backfill,
            settings=Settings(
                pin=True,
                lease_s=options.lease_s,
                memory=False,  # Slurm's business
                output_mb=options.output_mb,
                applications=options.described(),
            ),
            slurm=SlurmSettings(request, options.mpi, options.arguments, options.poll_s, options.warning_s),
            past=Past.read(journal.records(kinds=KINDS)) if share is None else share.past,
            share=share,
        )
