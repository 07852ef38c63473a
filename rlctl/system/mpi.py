"""MPI programs: find their mpiexec, check that it fits their library, and clean their environment."""

from __future__ import annotations

import functools
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlctl.core.errors import Key, LaunchError
from rlctl.system.launchers import AS_ROOT, Launcher, LaunchRequest, launch_command

# Variables of a surrounding mpiexec or batch system: a program that inherits them takes itself for one of its ranks.
# The local executor uses this machine only, so the batch system's list of nodes must go too.
_JOBS = ("SLURM_", "PBS_", "LSB_", "FLUX_", "PE_HOSTFILE")
_FOREIGN = ("OMPI_", "PRTE_", "PRRTE_", "PMI", "MPI_LOCAL", "HYDRA_", "HYDI_", *_JOBS)
_KEPT = "SLURM_CONF"  # locates the batch system, describes no job

_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    **AS_ROOT,
    # On one machine these start faster, and stay fast when there are more ranks than cores. Transports are excluded,
    # not listed: the one of shared memory has another name before Open MPI 5, and an unknown name ends a program.
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "^ofi,uct,usnic,openib,smcuda",
    # A waiting rank yields its core to the others: ranks share cores with whatever else runs there.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}

_ASK_MPI4PY = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"


def mpiexec_command(ranks: int, launcher: str | None = None, variables: Mapping[str, str] | None = None) -> list[str]:
    """The launcher with its flags; the program and its arguments follow. Ranks keep the affinity of the caller.

    An application may have its own ``launcher``, and ``variables`` whose PATH is searched.
    """
    path = (variables or os.environ).get("PATH")
    if launcher is not None:
        found = shutil.which(launcher, path=path)
    else:
        found = find_mpiexec() if path == os.environ.get("PATH") else _first_on(path)
    if found is None:
        where = launcher or "mpiexec"
        raise LaunchError(f"no {where} on this machine: install one with `pip install 'rlctl[mpi]'`, or load a module")
    return launch_command(launcher_family(found), LaunchRequest(ranks, program=found))[0]


def require_mpiexec(ranks: int, key: Key) -> None:
    """Raise LaunchError at a configuration's ``key``, which asks for several ranks, if there is no launcher."""
    try:
        mpiexec_command(ranks)
    except LaunchError as error:
        raise LaunchError(f"{ranks} ranks want MPI: {error}; or set it to [1]", key) from error


def find_mpiexec() -> str | None:
    """Path of the launcher of this Python environment, else of the first on PATH; None: there is none."""
    own = Path(sys.prefix) / "bin" / "mpiexec"
    return str(own) if os.access(own, os.X_OK) else _first_on(os.environ.get("PATH"))


def _first_on(path: str | None) -> str | None:
    return next((found for name in ("mpiexec", "mpirun", "orterun") if (found := shutil.which(name, path=path))), None)


def check_same_mpi(task: str, launcher: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Raise LaunchError if a program uses another MPI than its launcher: each of its N ranks would run alone.

    The libraries that a program loads, or the mpi4py of a Python, name its MPI; where they do not, it passes.
    """
    program = shutil.which(command[0], path=variables.get("PATH"))
    own = None if program is None else mpi_library(program, variables)
    if own is not None and own is not (family := launcher_family(launcher)):
        raise LaunchError(
            f"task {task}: {program} is built against {own}, but {launcher} is of {family}: it would run as "
            "independent programs of one rank each; name an application with the mpiexec of its own MPI"
        )


def mpi_library(program: str, variables: Mapping[str, str]) -> Launcher | None:
    """The MPI that a program uses, by the libraries that it loads or by its mpi4py; None: unknown."""
    return _mpi_library(program, tuple(sorted(variables.items())))


@functools.lru_cache(maxsize=256)
def _mpi_library(program: str, variables: tuple[tuple[str, str], ...]) -> Launcher | None:
    try:
        if Path(program).name.startswith("python"):
            return _family(_run([program, "-c", _ASK_MPI4PY], dict(variables)).stdout)
        with open(program, "rb") as file:
            if file.read(4) != b"\x7fELF":
                return None
        text = _run(["ldd", program], dict(variables)).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    if re.search(r"libmpi\.so\.[1-4]0\b", text):
        return Launcher.OPENMPI
    return Launcher.MPICH if re.search(r"libmpi(ch)?\.so\.12\b", text) else None


@functools.cache
def launcher_family(path: str) -> Launcher:
    """The family of a launcher, by its ``--version``."""
    try:
        done = _run([path, "--version"], clean_environment(os.environ))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path}: does not run ({error}): reinstall it, or remove it from PATH") from error
    text = done.stdout + done.stderr
    if (family := _family(text)) is not None:
        return family
    said = (text.strip().splitlines() or ["nothing"])[0]
    raise LaunchError(
        f"{path}: neither Open MPI nor MPICH (it says: {said}): install one with `pip install 'rlctl[mpi]'`"
    )


def _family(text: str) -> Launcher | None:
    """The MPI that a version text names.

    >>> _family("HYDRA build details:"), _family("prterun (PRRTE) 3.0.5"), _family("1.2")
    (<Launcher.MPICH: 'MPICH'>, <Launcher.OPENMPI: 'Open MPI'>, None)
    """
    if re.search("Open MPI|OpenRTE|PRRTE", text):
        return Launcher.OPENMPI
    return Launcher.MPICH if re.search(r"HYDRA|MPICH|Intel\(R\) MPI", text) else None


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60.0,
    )


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy without variables of a surrounding MPI program or batch job.

    >>> without_job({"SLURM_JOB_ID": "7", "SLURM_CONF": "/c"})
    {'SLURM_CONF': '/c'}
    """
    return {name: value for name, value in environment.items() if name == _KEPT or not name.startswith(_FOREIGN)}


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy without variables of a surrounding MPI program or batch job, with settings for quick starts here.

    >>> clean_environment({"HOME": "/h", "PMIX_RANK": "3"})["HOME"]
    '/h'
    >>> "PMIX_RANK" in clean_environment({"PMIX_RANK": "3"})
    False
    """
    return with_home(without_job(environment)) | _SETTINGS


def with_home(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy with a home folder: Open MPI needs one, and services and containers may have none.

    >>> with_home({"HOME": "/h"})
    {'HOME': '/h'}
    """
    if environment.get("HOME"):
        return dict(environment)
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # this user id has no name
        home = ""
    # Not a folder that other users can write: Open MPI reads settings there.
    return {**environment, "HOME": home if os.path.isdir(home) else "/"}


def scratch_environment(folder: Path) -> dict[str, str]:
    """Variables that put Open MPI's sockets and shared memory into one folder, for the caller to remove: a killed
    mpiexec cannot clean up.
    """
    return {"OMPI_MCA_btl_sm_backing_directory": str(folder), "PRTE_MCA_prte_tmpdir_base": str(folder)}
