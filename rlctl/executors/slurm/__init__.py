"""Tasks in an allocation of Slurm: rlctl chooses hosts, cores and GPUs; ``srun`` starts what runs there."""

from rlctl.executors.slurm.backend import SlurmExecutor

__all__ = ["SlurmExecutor"]
