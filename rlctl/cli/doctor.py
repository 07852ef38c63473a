"""Checks what this machine offers to rlctl, and advises on what is missing; without large imports."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlctl.core.errors import LaunchError
from rlctl.executors.local.processes import family, send_signal
from rlctl.executors.slurm.commands import PMI, pmi_problem
from rlctl.system.cores import usable_cores
from rlctl.system.devices import visible_devices
from rlctl.system.launchers import Launcher, LaunchRequest, launch_command
from rlctl.system.mpi import clean_environment, find_mpiexec, launcher_family, mpi_library, scratch_environment

_PATIENCE_S = 60.0
_ASK_MPI = (
    "from mpi4py import MPI; from rlctl.distributed.launch.abort import survives; "
    "print('size', MPI.COMM_WORLD.size, int(survives(MPI.COMM_WORLD)), MPI.Get_library_version().split(',')[0])"
)
_INSTALL_MPI = "pip install 'rlctl[mpi]'"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        ok: True: works; False: needs action; None: missing, and only some users need it.
        advice: what to do; empty if nothing.
    """

    name: str
    ok: bool | None
    detail: str
    advice: str = ""


def diagnose(folder: Path | None = None) -> list[Finding]:
    """Run all checks; ``folder`` is for runs, by default the current one."""
    return [python(), packages(), cores(), mpi(), gpus(), slurm(), writable(folder or Path.cwd())]


def python() -> Finding:
    """The interpreter."""
    return Finding("Python", True, f"{platform.python_version()} at {sys.executable}")


def packages() -> Finding:
    """Versions of rlctl and of its requirements, from their metadata."""
    versions, missing = [], []
    try:
        required = importlib.metadata.requires("rlctl") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", False, "rlctl itself is not installed", "pip install -e . in the source folder")
    for name in ["rlctl", *(re.split(r"[^\w.-]", text)[0] for text in required if "extra ==" not in text)]:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", False, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("packages", True, ", ".join(versions))


def cores() -> Finding:
    """Cores that this process may use."""
    (usable, why), present = usable_cores(), os.cpu_count() or 1
    usable_for = f"{usable} of {present} usable{why and f' ({why})'}"
    return Finding("cores", True, f"{usable_for}: machine.cores in a configuration may be up to {usable}")


def mpi() -> Finding:
    """Whether two ranks of mpi4py connect, which fails if launcher and library belong to different MPIs."""
    broken = functools.partial(Finding, "MPI", False)
    path = find_mpiexec()
    if path is None:
        advice = f"{_INSTALL_MPI}, or load your site's MPI module; without it tasks of several ranks cannot run"
        return broken("no mpiexec", advice)
    try:
        family = launcher_family(path)
        which, survive = f"{path} ({family})", family is Launcher.OPENMPI
        start = launch_command(family, LaunchRequest(2, program=path, survive=survive))[0]
        command = [*start, sys.executable, "-c", _ASK_MPI]
    except LaunchError as error:
        return broken(str(error), _INSTALL_MPI)
    with tempfile.TemporaryDirectory(prefix="rlctl-") as scratch:
        code, out, err = _run(command, clean_environment(os.environ) | scratch_environment(Path(scratch)))
    answers = [line.split(maxsplit=3) for line in out.splitlines() if line.startswith("size ")]
    sizes = [int(answer[1]) for answer in answers]
    if code == 0 and sizes == [2, 2]:
        lives = "training continues when a rank dies" if answers[0][2] == "1" else "a rank that dies ends the training"
        return Finding("MPI", True, f"{which}, 2 ranks of mpi4py with {answers[0][3]}; {lives}")
    if code == 0 and sizes == [1, 1]:
        detail = f"{which} starts 2 ranks, but mpi4py ({answers[0][3]}) runs each as a separate program"
        advice = "launcher and mpi4py belong to different MPIs: install only one in a fresh environment"
        return broken(detail, f"{advice}, {_INSTALL_MPI}")
    if code is None:
        return broken(f"{which}: 2 ranks did not respond within {_PATIENCE_S:g} s", f"reinstall: {_INSTALL_MPI}")
    lines = [line.strip() for line in err.splitlines() if line.strip("- ")] or [f"exit code {code}, answer {sizes}"]
    words = [line for line in lines if "Error" in line][-1:] or lines
    advice = f"try `{path} -n 2 hostname`; where that fails too: {_INSTALL_MPI} into a fresh environment"
    return broken(f"{which}: {words[0]}", advice)


def gpus() -> Finding:
    """GPUs according to the tools of their vendors, and those that this process may use."""
    found, seen = _gpus(), visible_devices(os.environ)
    if seen.names is None or not seen.source:
        return found
    return replace(found, detail=f"{found.detail}; {seen.source} allows {len(seen.names)}")


def _gpus() -> Finding:
    for tool, arguments in (("nvidia-smi", ["-L"]), ("rocm-smi", ["--showproductname"])):
        if shutil.which(tool) is not None:
            code, out, err = _run([tool, *arguments])
            lines = [line.strip() for line in out.splitlines() if "GPU" in line]
            if code == 0 and lines:
                return Finding("GPUs", True, "; ".join(lines))
            message = ((err or out).strip().splitlines() or [f"exit code {code}"])[0]
            return Finding("GPUs", False, f"{tool}: {message}", "check the driver; everything also runs without a GPU")
    return Finding("GPUs", None, "none (no nvidia-smi or rocm-smi)", "none needed; training and twins use the cores")


def slurm() -> Finding:
    """Slurm, and whether this process runs inside a job."""
    if shutil.which("sinfo") is None:
        advice = "none needed on one machine; on a cluster use a login or compute node"
        return Finding("Slurm", None, "not here", advice)
    code, out, err = _run(["sinfo", "--noheader", "--format=%P %D nodes"])
    job = os.environ.get("SLURM_JOB_ID")
    if code != 0:  # a machine outside a cluster may have the commands alone
        message = (err.strip().splitlines() or [f"exit code {code}"])[0]
        ask = "ask whether the controller is up; " if job else "if this is a cluster: "
        return Finding("Slurm", False if job else None, f"sinfo: {message}", f"{ask}check SLURM_CONF")
    where = f"{', '.join(out.strip().splitlines())}; {f'inside job {job}' if job else 'outside a job'}"
    if (why := _pmi_problem()) is not None:
        what, _, cure = why.partition(": ")
        return Finding("Slurm", False, f"{where}; ranks of this Python's MPI do not connect: {what}", cure)
    advice = "" if job else "executor slurm: inside a job (salloc, sbatch), or with executor.options.submit"
    return Finding("Slurm", True, where, advice)


def _pmi_problem() -> str | None:
    """Why ranks of this Python's MPI do not connect under srun; None: they do, or it is unknown."""
    family = mpi_library(sys.executable, clean_environment(os.environ))
    with contextlib.suppress(LaunchError):
        return None if family is None else pmi_problem(PMI[family])
    return None


def writable(folder: Path) -> Finding:
    """Whether runs can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Finding("folder", False, f"{folder}: {error.strerror}", "give a run folder elsewhere with --run")
    return Finding("folder", True, f"{folder}: writable, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free")


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[int | None, str, str]:
    """Exit code (None: timeout), output and errors of a command; kills its whole session on a timeout."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return -1, "", f"Error: {error}"
    try:
        out, err = process.communicate(timeout=_PATIENCE_S)
    except BaseException as error:
        send_signal(family([process.pid]), signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return None, "", ""
        raise
    return process.returncode, out, err
