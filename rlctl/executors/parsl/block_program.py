"""MPI programs over all hosts of a block, where each worker is the master of a block of several hosts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.executors.local.process_task import ProcessTask
from rlctl.executors.slurm.commands import hostnames
from rlctl.system.launchers import LaunchRequest, launch_command
from rlctl.system.mpi import launcher_family, without_job

_FILES = ("PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "COBALT_NODEFILE")
"""Variables of batch systems that name a file with a host in each line."""

_HERE_ONLY = ("OMPI_MCA_pml", "OMPI_MCA_btl")
"""Variables that make Open MPI fast on one machine, and slow over several."""


def hosts_of_block(environment: Mapping[str, str]) -> list[str]:
    """Hosts of the batch job that this process runs in, in the order of the batch system; empty if it names none."""
    listed = environment.get("SLURM_JOB_NODELIST")
    try:
        if listed is not None:
            return list(hostnames(listed))
        path = next((environment[name] for name in _FILES if name in environment), None)
        return [] if path is None else list(dict.fromkeys(Path(path).read_text().split()))
    except (OSError, LaunchError) as error:
        raise LaunchError(f"the hosts of this block cannot be found out: {error}") from error


class BlockProgram(ProcessTask):
    """A program in a worker that is the master of its block: its ranks are spread evenly over all hosts."""

    def launch(self, command: list[str], environment: dict[str, str], gpus: Mapping[str, str]) -> dict[str, Any]:
        """Start the command by the mpiexec of its application, with the hosts on its command line."""
        need, job = self.attempt.need, dict(os.environ)
        hosts = hosts_of_block(job) if need.ranks > 1 else []
        if len(hosts) < 2:
            return super().launch(command, environment, gpus)
        program = self._environments.mpiexec(self.attempt.spec, need.ranks)[0]
        few, more = divmod(need.ranks, len(hosts))
        ranks = {host: few + (number < more) for number, host in enumerate(hosts) if few + (number < more)}
        start, added = launch_command(
            launcher_family(program), LaunchRequest(ranks, cores_per_rank=need.cores_per_rank, program=program)
        )
        kept = without_job(job)
        given = {name: value for name, value in job.items() if name not in kept}
        unset = [word for name in _HERE_ONLY if name not in environment for word in ("-u", name)]
        wrapper = self._environments.wrapper(self.attempt.spec)
        self.command = [*wrapper, "/usr/bin/env", *unset, *start, *command]
        outputs = (f"{self.errors[:-3]}out", self.errors)
        environment = {**given, **added, **environment, **gpus}
        return {"command": self.command, "environment": environment, "outputs": outputs}
