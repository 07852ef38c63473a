"""Whether this process is one of several MPI ranks, from its environment variables alone, without loading MPI."""

from __future__ import annotations

import os
from collections.abc import Mapping

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE")
_STEP_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_RANKS = ("PMIX_RANK", "PMI_RANK", "PMI_FD")


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """Ranks of the MPI job that this process is part of, as set by its launcher; 1 if of none.

    >>> world_size({"OMPI_COMM_WORLD_SIZE": "4"}), world_size({"PMI_RANK": "1", "PMI_SIZE": "2"})
    (4, 2)
    >>> world_size({"SLURM_NTASKS": "8", "PMIX_RANK": "0"}), world_size({"SLURM_NTASKS": "8"})
    (8, 1)
    """
    sizes = [environment[name] for name in _SIZES if name in environment]
    if not sizes and any(name in environment for name in _RANKS):  # srun: only a step with MPI has these
        sizes = [environment[name] for name in _STEP_SIZES if name in environment]
    return int(sizes[0]) if sizes and sizes[0].isdigit() else 1


def under_mpi(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several ranks."""
    return world_size(environment) > 1
