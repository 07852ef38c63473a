"""``executor.options`` of the Slurm executor."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rlctl.executors.options import SharedOptions


class SubmitOptions(BaseModel):
    """How to submit jobs for the allocation, where rlctl does not run inside one already.

    Attributes:
        time_limit: of each job, as for ``sbatch --time``; another job follows as long as the campaign goes on.
        arguments: further arguments of ``sbatch``, e.g. ``[--partition=gpu, --account=abc]``.
        abandoned_s: a job ends by itself after so many seconds without a controller.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_limit: str = "1:00:00"
    arguments: tuple[str, ...] = ()
    abandoned_s: float = Field(default=900.0, ge=60.0, le=1e7)


class SlurmOptions(SharedOptions):
    """``executor.options`` of the Slurm executor, beside those of all executors that run programs.

    Attributes:
        submit: how to submit jobs for the allocation; not used inside a job, whose nodes are taken.
        mpi: as for ``srun --mpi``; null: ``pmix`` for Open MPI, ``pmi2`` for MPICH and its derivatives.
        arguments: further arguments of every ``srun``.
        poll_s: seconds between two queries of the nodes and the time limit.
        warning_s: so long before the end of a job its tasks are stopped, to run again in the next one.
    """

    submit: SubmitOptions | None = None
    mpi: str | None = None
    arguments: tuple[str, ...] = ()
    poll_s: float = Field(default=10.0, ge=0.1, le=3600.0)
    warning_s: float = Field(default=60.0, ge=1.0, le=86_400.0)
