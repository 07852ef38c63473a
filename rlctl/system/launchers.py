"""Command lines of the launchers of MPI programs, as pure functions.

rlctl chooses hosts, cores and GPUs; the launcher only starts the ranks there at once, beside whatever else rlctl runs
on these hosts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rlctl.core.errors import LaunchError


class Launcher(StrEnum):
    """Families of launchers that take the same flags."""

    OPENMPI = "Open MPI"
    MPICH = "MPICH"
    SRUN = "srun"


AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Lets Open MPI run as root, the usual user in containers."""

# Inside a Slurm job both start their daemons by an srun of their own, which reads these.
_INSIDE_SLURM = {"SLURM_OVERLAP": "1", "SLURM_CPU_BIND": "none"}


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Ranks of one program, and where they run.

    Attributes:
        ranks: number of ranks per host, in order of rank; an int: on this machine.
        cores_per_rank: threads of a rank.
        job: id of the allocation, for srun.
        pmi: process management interface of srun: ``pmi2`` for MPICH, ``pmix`` for Open MPI; None: the site's default.
        survive: the other ranks go on when one is killed, where launcher and MPI support it.
        program: path of the launcher; None: found on PATH.
        flags: further flags, set last.
    """

    ranks: int | Mapping[str, int] = 1
    cores_per_rank: int = 1
    job: str | None = None
    pmi: str | None = None
    survive: bool = False
    program: str | None = None
    flags: Sequence[str] = ()

    @property
    def hosts(self) -> Mapping[str, int]:
        """Ranks by host; empty: this machine."""
        return {} if isinstance(self.ranks, int) else self.ranks

    @property
    def total(self) -> int:
        """Ranks over all hosts."""
        return self.ranks if isinstance(self.ranks, int) else sum(self.ranks.values())


def launch_command(launcher: Launcher, request: LaunchRequest) -> tuple[list[str], dict[str, str]]:
    """The command that precedes a program and its arguments, and the variables to set for it.

    >>> request = LaunchRequest({"n1": 2, "n2": 1}, job="7", pmi="pmi2")
    >>> launch_command(Launcher.SRUN, request)[0]  # doctest: +NORMALIZE_WHITESPACE
    ['srun', '--jobid=7', '--overlap', '--cpu-bind=none', '--mpi=pmi2', '--kill-on-bad-exit=1', '--nodes=2',
     '--ntasks=3', '--nodelist=n1,n1,n2', '--distribution=arbitrary']
    """
    if not request.total:
        raise LaunchError("a program needs at least one rank: set ranks of the task")
    environment = {"OMP_NUM_THREADS": str(request.cores_per_rank)}
    if launcher is Launcher.SRUN:
        return [request.program or "srun", *_srun(request), *request.flags], environment
    flags = _openmpi(request) if launcher is Launcher.OPENMPI else _mpich(request)
    environment |= AS_ROOT if launcher is Launcher.OPENMPI else {}
    environment |= _INSIDE_SLURM if request.hosts else {}
    return [request.program or "mpiexec", *flags, "-n", str(request.total), *request.flags], environment


def _openmpi(request: LaunchRequest) -> list[str]:
    # Bound, the ranks of every mpiexec would share the first cores; unbound ones keep the inherited affinity.
    flags = [*(["--with-ft", "ulfm"] if request.survive else []), "--oversubscribe", "--bind-to", "none"]
    return flags + (["--host", _host_list(request)] if request.hosts else [])


def _mpich(request: LaunchRequest) -> list[str]:
    # It has no fault tolerance: under -disable-auto-cleanup a killed rank still ends all, and the others get SIGUSR1.
    if not request.hosts:
        return ["-launcher", "fork", "-bind-to", "none"]
    # In a Slurm job its daemons start in Slurm's order of nodes, whatever the order here: pass hosts in that order.
    return ["-bind-to", "none", "-hosts", _host_list(request)]


def _host_list(request: LaunchRequest) -> str:
    return ",".join(f"{host}:{ranks}" for host, ranks in request.hosts.items())


def _srun(request: LaunchRequest) -> list[str]:
    flags = [] if request.job is None else [f"--jobid={request.job}"]
    # No --cpus-per-task: it implies --exact, with cores of Slurm's choice.
    flags += ["--overlap", "--cpu-bind=none"]
    if request.pmi is not None:
        flags += [f"--mpi={request.pmi}"]
    # A dead rank ends the program, as under mpiexec: the others would wait for it for ever.
    flags += ["--kill-on-bad-exit=0", "--no-kill"] if request.survive else ["--kill-on-bad-exit=1"]
    flags += [f"--nodes={len(request.hosts) or 1}", f"--ntasks={request.total}"]
    counts = set(request.hosts.values())
    if len(counts) == 1:
        flags += [f"--ntasks-per-node={counts.pop()}", f"--nodelist={','.join(request.hosts)}"]
    elif counts:
        ranks = [host for host, count in request.hosts.items() for _ in range(count)]
        flags += [f"--nodelist={','.join(ranks)}", "--distribution=arbitrary"]
    return flags
