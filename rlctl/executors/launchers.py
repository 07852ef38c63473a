"""Command lines of the launchers of parallel programs, as a table of pure functions.

rlctl chooses hosts, cores and GPUs; the launcher only starts the ranks there at once, beside whatever else rlctl runs
on these hosts. Launchers that take no hosts (jsrun) or spread ranks evenly refuse requests that they cannot meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rlctl.core.errors import LaunchError
from rlctl.executors.devices import ANY_VENDOR, MASKS, mask_variables


class Launcher(StrEnum):
    """Families of launchers that take the same flags."""

    OPENMPI = "Open MPI"
    MPICH = "MPICH"
    SRUN = "srun"
    JSRUN = "jsrun"
    FLUX = "flux"
    APRUN = "aprun"
    PALS = "PALS"


AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Lets Open MPI run as root, the usual user in containers."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Ranks of one program, and where they run.

    Attributes:
        ranks: number of ranks per host, in order of rank; an int: on this machine.
        cores_per_rank: threads of a rank.
        gpus_per_rank: below 1, ranks share a device.
        gpus: names of the program's devices, the same on each host; None: all that are visible.
        masks: variables that carry these names; see ``rlctl.executors.devices``.
        bind: the launcher binds each rank to cores of its own, which nothing else may use.
        job: id of the allocation, for srun.
        pmi: process management interface of srun: ``pmi2`` or ``cray_shasta`` for MPICH, ``pmix`` for Open MPI; None:
            the site's default.
        survive: the other ranks go on when one is killed, where launcher and MPI support it.
        program: path of the launcher; None: found on PATH.
        flags: further flags, set last.
    """

    ranks: int | Mapping[str, int] = 1
    cores_per_rank: int = 1
    gpus_per_rank: float = 0.0
    gpus: Sequence[str] | None = None
    masks: Sequence[str] = ANY_VENDOR
    bind: bool = False
    job: str | None = None
    pmi: str | None = None
    survive: bool = False
    program: str | None = None
    flags: Sequence[str] = field(default_factory=tuple)

    @property
    def hosts(self) -> Mapping[str, int]:
        """Ranks by host; empty: this machine."""
        return {} if isinstance(self.ranks, int) else self.ranks

    @property
    def total(self) -> int:
        """Ranks over all hosts."""
        return self.ranks if isinstance(self.ranks, int) else sum(self.ranks.values())

    def per_host(self, launcher: Launcher) -> int:
        """Ranks of each host.

        Raises:
            LaunchError: hosts have different numbers of ranks.
        """
        counts = set(self.hosts.values()) or {self.total}
        if len(counts) > 1:
            spread = ", ".join(f"{host}: {ranks}" for host, ranks in self.hosts.items())
            raise LaunchError(f"{launcher} wants as many ranks on each host, not {spread}: set nodes of the task")
        return counts.pop()

    def whole_gpus(self, launcher: Launcher) -> int:
        """GPUs of a rank.

        Raises:
            LaunchError: the number is a fraction.
        """
        if self.gpus_per_rank != int(self.gpus_per_rank):
            raise LaunchError(f"{launcher} gives whole GPUs to a rank, not {self.gpus_per_rank:g}: ask for whole ones")
        return int(self.gpus_per_rank)


def launch_command(launcher: Launcher, request: LaunchRequest) -> tuple[list[str], dict[str, str]]:
    """The command that precedes a program and its arguments, and the variables to set for it.

    >>> request = LaunchRequest({"n1": 2, "n2": 1}, job="7", pmi="pmi2")
    >>> launch_command(Launcher.SRUN, request)[0]  # doctest: +NORMALIZE_WHITESPACE
    ['srun', '--jobid=7', '--overlap', '--cpu-bind=none', '--mpi=pmi2', '--kill-on-bad-exit=1', '--nodes=2',
     '--ntasks=3', '--nodelist=n1,n1,n2', '--distribution=arbitrary']

    Raises:
        LaunchError: the launcher cannot meet the request.
    """
    if not request.total:
        raise LaunchError("a program needs at least one rank: set ranks of the task")
    words, build = _TABLE[launcher]
    flags, environment = build(request)
    environment = {"OMP_NUM_THREADS": str(request.cores_per_rank), **environment}
    devices = {} if request.gpus is None else mask_variables(request.gpus, request.masks)
    after: list[str] = []
    if launcher is Launcher.SRUN and devices:
        # A step resets the masks to all GPUs of the job: only a command inside the step can narrow them.
        others = [word for name in MASKS if name not in devices for word in ("-u", name)]
        after = ["env", *others, *(f"{name}={value}" for name, value in devices.items())]
    elif launcher not in (Launcher.JSRUN, Launcher.FLUX):  # these choose the devices and set the masks
        environment |= devices
    return [request.program or words[0], *words[1:], *flags, *request.flags, *after], environment


_Command = tuple[list[str], dict[str, str]]


def _openmpi(request: LaunchRequest) -> _Command:
    flags = ["--with-ft", "ulfm"] if request.survive else []
    flags += ["--oversubscribe"] if not request.bind else []
    if request.bind:
        flags += ["--map-by", f"slot:PE={request.cores_per_rank}", "--bind-to", "core"]
    else:
        # Bound, the ranks of every mpiexec would share the first cores; unbound ones keep the inherited affinity.
        flags += ["--bind-to", "none"]
    if request.hosts:
        flags += ["--host", ",".join(f"{host}:{ranks}" for host, ranks in request.hosts.items())]
    return [*flags, "-n", str(request.total)], AS_ROOT | (_INSIDE_SLURM if request.hosts else {})


def _mpich(request: LaunchRequest) -> _Command:
    # It has no fault tolerance: under -disable-auto-cleanup a killed rank still ends all, and the others get SIGUSR1.
    flags = ["-bind-to", f"core:{request.cores_per_rank}" if request.bind else "none"]
    if not request.hosts:
        return ["-launcher", "fork", *flags, "-n", str(request.total)], {}
    # In a Slurm job its daemons start in Slurm's order of nodes, whatever the order here: pass hosts in that order.
    hosts = ",".join(f"{host}:{ranks}" for host, ranks in request.hosts.items())
    return [*flags, "-hosts", hosts, "-n", str(request.total)], dict(_INSIDE_SLURM)


# Inside a Slurm job both start their daemons by an srun of their own, which reads these.
_INSIDE_SLURM = {"SLURM_OVERLAP": "1", "SLURM_CPU_BIND": "none"}


def _srun(request: LaunchRequest) -> _Command:
    flags = [] if request.job is None else [f"--jobid={request.job}"]
    if request.bind:
        # Slurm chooses: the step waits for free cores and GPUs, and would get all GPUs if it named none.
        gpus = request.whole_gpus(Launcher.SRUN)
        flags += ["--exact", f"--cpus-per-task={request.cores_per_rank}", "--cpu-bind=cores"]
        flags += [f"--gpus-per-task={gpus}" if gpus else "--gres=none"]
    else:
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
    return flags, {}


def _jsrun(request: LaunchRequest) -> _Command:
    # One resource set per rank. jsrun takes no host names: it fills the free hosts.
    gpus = request.whole_gpus(Launcher.JSRUN)
    flags = [f"--nrs={request.total}", f"--rs_per_host={request.per_host(Launcher.JSRUN)}", "--tasks_per_rs=1"]
    flags += [f"--cpu_per_rs={request.cores_per_rank}", f"--gpu_per_rs={gpus}"]
    return [*flags, f"--bind=packed:{request.cores_per_rank}" if request.bind else "--bind=rs"], {}


def _flux(request: LaunchRequest) -> _Command:
    gpus = request.whole_gpus(Launcher.FLUX)
    request.per_host(Launcher.FLUX)
    flags = [
        f"--nodes={len(request.hosts) or 1}",
        f"--ntasks={request.total}",
        f"--cores-per-task={request.cores_per_rank}",
    ]
    if gpus:
        flags += [f"--gpus-per-task={gpus}", "--setopt=gpu-affinity=per-task"]
    if request.hosts:
        flags += [f"--requires=host:{','.join(request.hosts)}"]
    return [*flags, f"--setopt=cpu-affinity={'per-task' if request.bind else 'on'}"], {}


def _aprun(request: LaunchRequest) -> _Command:
    flags = ["-n", str(request.total), "-N", str(request.per_host(Launcher.APRUN)), "-d", str(request.cores_per_rank)]
    flags += ["-cc", "depth" if request.bind else "none"]
    return [*flags, *(["-L", ",".join(request.hosts)] if request.hosts else [])], {}


def _pals(request: LaunchRequest) -> _Command:
    flags = [
        "-n",
        str(request.total),
        "--ppn",
        str(request.per_host(Launcher.PALS)),
        "--depth",
        str(request.cores_per_rank),
    ]
    flags += ["--cpu-bind", "depth" if request.bind else "none"]
    return [*flags, *(["--hosts", ",".join(request.hosts)] if request.hosts else [])], {}


_TABLE: Mapping[Launcher, tuple[tuple[str, ...], Callable[[LaunchRequest], _Command]]] = {
    Launcher.OPENMPI: (("mpiexec",), _openmpi),
    Launcher.MPICH: (("mpiexec",), _mpich),
    Launcher.SRUN: (("srun",), _srun),
    Launcher.JSRUN: (("jsrun",), _jsrun),
    Launcher.FLUX: (("flux", "run"), _flux),
    Launcher.APRUN: (("aprun",), _aprun),
    Launcher.PALS: (("mpiexec",), _pals),
}
"""Words that start each launcher where no path is given, and its flags and variables."""
