"""Starting MPI programs: which mpiexec there is, the flags it wants, and an environment that does it no harm."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlctl.core.errors import LaunchError
from rlctl.executors.launchers import AS_ROOT, Launch, Launcher, launch

# What a surrounding mpiexec or batch system leaves behind: a program that inherits it takes itself for one of
# their ranks. The local executor uses this machine only, so the batch system's list of nodes must go too.
_FOREIGN = ("OMPI_", "PRTE_", "PRRTE_", "PMI", "MPI_LOCAL", "HYDRA_", "HYDI_", "SLURM_", "PBS_", "LSB_", "FLUX_")
_FOREIGN_NAMES = ("PE_HOSTFILE",)
_KEPT = ("SLURM_CONF",)  # where the batch system is, not what it gave

_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    **AS_ROOT,
    # On one machine these start faster, and stay fast when there are more ranks than cores.
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,sm,tcp",
    # A rank that waits lets the one that it waits for run: ranks share cores with whatever else runs there.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def mpiexec_command(ranks: int, launcher: str | None = None, variables: Mapping[str, str] | None = None) -> list[str]:
    """The launcher with its flags; the program and its arguments follow. Ranks keep the affinity of the caller.

    Args:
        launcher: an application's own mpiexec; None: the one that is found.
        variables: an application's environment, in which it is looked for.

    Raises:
        LaunchError: there is no launcher, or it is of no known family.
    """
    own = variables is not None and variables.get("PATH") != os.environ.get("PATH")
    path = shutil.which(launcher, path=(variables or os.environ).get("PATH")) if launcher else None
    if path is None and launcher is None:
        path = _first((variables or {}).get("PATH")) if own else find_mpiexec()
    if path is None:
        where = launcher or "mpiexec"
        raise LaunchError(f"no {where} on this machine: install one with `pip install 'rlctl[mpi]'`, or load a module")
    return launch(flavour(path), Launch(ranks, program=path))[0]


def find_mpiexec() -> str | None:
    """Path of the launcher: that of this Python environment, or else the first on PATH; None if there is none."""
    own = Path(sys.prefix) / "bin" / "mpiexec"
    if os.access(own, os.X_OK):
        return str(own)
    return _first(None)


def _first(path: str | None) -> str | None:
    return next((found for name in ("mpiexec", "mpirun", "orterun") if (found := shutil.which(name, path=path))), None)


def check_same_mpi(task: str, launcher: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Refuse a program of another MPI than its launcher's: each of its N ranks would run alone, N times the same.

    A program's MPI is seen from the libraries that it loads, Python's from mpi4py; where neither tells, nothing is
    said.

    Raises:
        LaunchError: they differ.
    """
    program = shutil.which(command[0], path=variables.get("PATH"))
    if program is None:
        return
    own = library(program, variables)
    if own is not None and own is not flavour(launcher):
        raise LaunchError(
            f"task {task}: {program} is built against {own}, but {launcher} is of {flavour(launcher)}: it would run as "
            "independent programs of one rank each; name an application with the mpiexec of its own MPI"
        )


def library(program: str, variables: Mapping[str, str]) -> Launcher | None:
    """The MPI that a program uses, from the libraries that it loads, or from its mpi4py; None: it cannot be told."""
    return _library(program, tuple(sorted(variables.items())))


@functools.lru_cache(maxsize=256)
def _library(program: str, variables: tuple[tuple[str, str], ...]) -> Launcher | None:
    environment = dict(variables)
    if Path(program).name.startswith("python"):
        ask = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
        text = _said([program, "-c", ask], environment)
        return Launcher.OPENMPI if "Open MPI" in text else Launcher.MPICH if re.search("MPICH|Intel", text) else None
    with contextlib.suppress(OSError), open(program, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return None
    text = _said(["ldd", program], environment)
    if re.search(r"libmpi\.so\.[1-4]0\b", text):
        return Launcher.OPENMPI
    return Launcher.MPICH if re.search(r"libmpi(ch)?\.so\.12\b", text) else None


def _said(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60.0
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout


@functools.cache
def flavour(path: str) -> Launcher:
    """Which family a launcher belongs to, by what it says with ``--version``.

    Raises:
        LaunchError: it does not run, or says nothing known.
    """
    try:
        answer = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60.0,
            env=clean_environment(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path}: does not run ({error}): reinstall it, or remove it from PATH") from error
    text = answer.stdout + answer.stderr
    if any(mark in text for mark in ("Open MPI", "OpenRTE", "PRRTE")):
        return Launcher.OPENMPI
    if any(mark in text for mark in ("HYDRA", "MPICH", "Intel(R) MPI")):
        return Launcher.MPICH
    said = (text.strip().splitlines() or ["nothing"])[0]
    raise LaunchError(
        f"{path}: neither Open MPI nor MPICH (it says: {said}): install one with `pip install 'rlctl[mpi]'`"
    )


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy without traces of a surrounding MPI program or batch job.

    >>> without_job({"SLURM_JOB_ID": "7", "SLURM_CONF": "/c"})
    {'SLURM_CONF': '/c'}
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or (not name.startswith(_FOREIGN) and name not in _FOREIGN_NAMES)
    }


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy without traces of a surrounding MPI program or batch job, with settings for quick starts here.

    >>> clean_environment({"HOME": "/h", "PMIX_RANK": "3"})["HOME"]
    '/h'
    >>> "PMIX_RANK" in clean_environment({"PMIX_RANK": "3"})
    False
    """
    return with_home(without_job(environment)) | _SETTINGS


def with_home(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy that has a home folder, without which Open MPI does not start: services and containers may have none.

    >>> with_home({"HOME": "/h"})
    {'HOME': '/h'}
    """
    if environment.get("HOME"):
        return dict(environment)
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a number without a name
        home = ""
    # Not a folder that others can write: Open MPI reads settings there.
    return {**environment, "HOME": home if os.path.isdir(home) else "/"}


def scratch_environment(folder: Path) -> dict[str, str]:
    """Variables that make Open MPI put its sockets and shared memory into one folder.

    A killed mpiexec cannot clean up; whoever killed it removes the folder.
    """
    return {"OMPI_MCA_btl_sm_backing_directory": str(folder), "PRTE_MCA_prte_tmpdir_base": str(folder)}
