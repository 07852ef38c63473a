"""Launchers of parallel programs: what each wants to be told, as a table of pure functions.

rlctl has chosen the hosts, the cores and the GPUs; a launcher only has to start the ranks there, at once, next to
whatever else rlctl has put on the same hosts. Those that cannot be told where (jsrun) or that spread ranks evenly
only refuse what they cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rlctl.core.errors import LaunchError
from rlctl.executors.devices import ANY_MAKER, MASKS, told


class Launcher(StrEnum):
    """Families of launchers that take the same flags."""

    OPENMPI = "Open MPI"
    MPICH = "MPICH"
    SRUN = "srun"
    JSRUN = "jsrun"
    FLUX = "flux"
    APRUN = "aprun"
    PALS = "PALS"


PROGRAMS = {
    Launcher.OPENMPI: ("mpiexec",),
    Launcher.MPICH: ("mpiexec",),
    Launcher.SRUN: ("srun",),
    Launcher.JSRUN: ("jsrun",),
    Launcher.FLUX: ("flux", "run"),
    Launcher.APRUN: ("aprun",),
    Launcher.PALS: ("mpiexec",),
}
"""How each is called where no path is given."""

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Open MPI refuses root, which is who one is in containers."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Ranks of one program, and where they run.

    Attributes:
        ranks: how many on each host, in order of rank; an int: so many on this machine.
        cores_per_rank: threads that a rank may have.
        gpus_per_rank: below 1, ranks share a device.
        gpus: names of the devices that the program gets, the same on each host. None: whatever there is.
        masks: variables that tell it so; see ``rlctl.executors.devices``.
        bind: let the launcher bind each rank to cores of its own, which must then be nobody else's.
        job: id of the allocation, for srun.
        pmi: how srun brings the ranks together: ``pmi2`` or ``cray_shasta`` for MPICH, ``pmix`` for Open MPI; None: the
            site's default.
        survive: the other ranks go on when one is killed, where launcher and MPI can.
        program: path of the launcher.
        flags: more of its flags, set last.
    """

    ranks: int | Mapping[str, int] = 1
    cores_per_rank: int = 1
    gpus_per_rank: float = 0.0
    gpus: Sequence[str] | None = None
    masks: Sequence[str] = ANY_MAKER
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
            LaunchError: they differ.
        """
        counts = set(self.hosts.values()) or {self.total}
        if len(counts) > 1:
            spread = ", ".join(f"{host}: {ranks}" for host, ranks in self.hosts.items())
            raise LaunchError(f"{launcher} wants as many ranks on each host, not {spread}: set nodes of the task")
        return counts.pop()

    def whole_gpus(self, launcher: Launcher) -> int:
        """GPUs of a rank.

        Raises:
            LaunchError: it is a fraction.
        """
        if self.gpus_per_rank != int(self.gpus_per_rank):
            raise LaunchError(f"{launcher} gives whole GPUs to a rank, not {self.gpus_per_rank:g}: ask for whole ones")
        return int(self.gpus_per_rank)


def launch(launcher: Launcher, what: Launch) -> tuple[list[str], dict[str, str]]:
    """The command that stands before a program and its arguments, and the variables to set for it.

    >>> launch(Launcher.SRUN, Launch({"n1": 2, "n2": 1}, job="7", pmi="pmi2"))[0]  # doctest: +NORMALIZE_WHITESPACE
    ['srun', '--jobid=7', '--overlap', '--cpu-bind=none', '--mpi=pmi2', '--kill-on-bad-exit=1', '--nodes=2',
     '--ntasks=3', '--nodelist=n1,n1,n2', '--distribution=arbitrary']

    Raises:
        LaunchError: the launcher cannot do it.
    """
    if not what.total:
        raise LaunchError("a program needs at least one rank: set ranks of the task")
    flags, environment = _TABLE[launcher](what)
    first = PROGRAMS[launcher] if what.program is None else (what.program, *PROGRAMS[launcher][1:])
    environment = {"OMP_NUM_THREADS": str(what.cores_per_rank), **environment}
    devices = {} if what.gpus is None else told(what.gpus, what.masks)
    after: list[str] = []
    if launcher is Launcher.SRUN and devices:
        # A step sets these anew, to all the GPUs of the job: only what runs inside it can choose.
        others = [word for name in MASKS if name not in devices for word in ("-u", name)]
        after = ["env", *others, *(f"{name}={value}" for name, value in devices.items())]
    elif launcher not in _GIVES_GPUS:
        environment |= devices
    return [*first, *flags, *what.flags, *after], environment


_Told = tuple[list[str], dict[str, str]]


def _openmpi(what: Launch) -> _Told:
    flags = ["--with-ft", "ulfm"] if what.survive else []
    flags += ["--oversubscribe"] if not what.bind else []
    if what.bind:
        flags += ["--map-by", f"slot:PE={what.cores_per_rank}", "--bind-to", "core"]
    else:
        # Otherwise the ranks of every mpiexec are bound to the first cores; unbound ones keep what they inherit.
        flags += ["--bind-to", "none"]
    if what.hosts:
        flags += ["--host", ",".join(f"{host}:{ranks}" for host, ranks in what.hosts.items())]
    return [*flags, "-n", str(what.total)], AS_ROOT | (_INSIDE_SLURM if what.hosts else {})


def _mpich(what: Launch) -> _Told:
    # Nothing to survive with: under -disable-auto-cleanup a killed rank takes all with it too, and others get SIGUSR1.
    flags = ["-bind-to", f"core:{what.cores_per_rank}" if what.bind else "none"]
    if not what.hosts:
        return ["-launcher", "fork", *flags, "-n", str(what.total)], {}
    # In a Slurm job its daemons stand in Slurm's order of nodes, whatever the order here: give hosts in that order.
    hosts = ",".join(f"{host}:{ranks}" for host, ranks in what.hosts.items())
    return [*flags, "-hosts", hosts, "-n", str(what.total)], dict(_INSIDE_SLURM)


# Inside a Slurm job both start their daemons by an srun of their own, which reads these.
_INSIDE_SLURM = {"SLURM_OVERLAP": "1", "SLURM_CPU_BIND": "none"}


def _srun(what: Launch) -> _Told:
    flags = [] if what.job is None else [f"--jobid={what.job}"]
    if what.bind:
        # Slurm chooses: the step waits until so many cores and GPUs are free, and has all GPUs where it names none.
        gpus = what.whole_gpus(Launcher.SRUN)
        flags += ["--exact", f"--cpus-per-task={what.cores_per_rank}", "--cpu-bind=cores"]
        flags += [f"--gpus-per-task={gpus}" if gpus else "--gres=none"]
    else:
        # No --cpus-per-task: it implies --exact, with cores of Slurm's choice.
        flags += ["--overlap", "--cpu-bind=none"]
    if what.pmi is not None:
        flags += [f"--mpi={what.pmi}"]
    # One rank's end is the program's, as under mpiexec: the others would wait for it for ever.
    flags += ["--kill-on-bad-exit=0", "--no-kill"] if what.survive else ["--kill-on-bad-exit=1"]
    flags += [f"--nodes={len(what.hosts) or 1}", f"--ntasks={what.total}"]
    counts = set(what.hosts.values())
    if len(counts) == 1:
        flags += [f"--ntasks-per-node={counts.pop()}", f"--nodelist={','.join(what.hosts)}"]
    elif counts:
        ranks = [host for host, count in what.hosts.items() for _ in range(count)]
        flags += [f"--nodelist={','.join(ranks)}", "--distribution=arbitrary"]
    return flags, {}


def _jsrun(what: Launch) -> _Told:
    # One resource set to a rank. There are no names of hosts: it fills those that are free.
    gpus = what.whole_gpus(Launcher.JSRUN)
    flags = [f"--nrs={what.total}", f"--rs_per_host={what.per_host(Launcher.JSRUN)}", "--tasks_per_rs=1"]
    flags += [f"--cpu_per_rs={what.cores_per_rank}", f"--gpu_per_rs={gpus}"]
    return [*flags, f"--bind=packed:{what.cores_per_rank}" if what.bind else "--bind=rs"], {}


def _flux(what: Launch) -> _Told:
    gpus = what.whole_gpus(Launcher.FLUX)
    what.per_host(Launcher.FLUX)
    flags = [f"--nodes={len(what.hosts) or 1}", f"--ntasks={what.total}", f"--cores-per-task={what.cores_per_rank}"]
    if gpus:
        flags += [f"--gpus-per-task={gpus}", "--setopt=gpu-affinity=per-task"]
    if what.hosts:
        flags += [f"--requires=host:{','.join(what.hosts)}"]
    return [*flags, f"--setopt=cpu-affinity={'per-task' if what.bind else 'on'}"], {}


def _aprun(what: Launch) -> _Told:
    flags = ["-n", str(what.total), "-N", str(what.per_host(Launcher.APRUN)), "-d", str(what.cores_per_rank)]
    flags += ["-cc", "depth" if what.bind else "none"]
    return [*flags, *(["-L", ",".join(what.hosts)] if what.hosts else [])], {}


def _pals(what: Launch) -> _Told:
    flags = ["-n", str(what.total), "--ppn", str(what.per_host(Launcher.PALS)), "--depth", str(what.cores_per_rank)]
    flags += ["--cpu-bind", "depth" if what.bind else "none"]
    return [*flags, *(["--hosts", ",".join(what.hosts)] if what.hosts else [])], {}


_TABLE: Mapping[Launcher, Callable[[Launch], _Told]] = {
    Launcher.OPENMPI: _openmpi,
    Launcher.MPICH: _mpich,
    Launcher.SRUN: _srun,
    Launcher.JSRUN: _jsrun,
    Launcher.FLUX: _flux,
    Launcher.APRUN: _aprun,
    Launcher.PALS: _pals,
}

_GIVES_GPUS = (Launcher.JSRUN, Launcher.FLUX)  # they choose the devices, and say which in the environment
