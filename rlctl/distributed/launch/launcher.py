"""``rlctl train --ranks N``: start the ranks, supervise them, and clean up after them."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rlctl.core.errors import LaunchError
from rlctl.distributed.launch import stale_shm, status_file
from rlctl.distributed.launch.abort import RESUMABLE
from rlctl.distributed.launch.signals import end_with_parent
from rlctl.executors.local.processes import reap, send_signal
from rlctl.executors.slurm.commands import pmi_problem
from rlctl.system.crash_report import EXIT_CODE
from rlctl.system.interrupts import requested_by_signals
from rlctl.system.launchers import AS_ROOT, Launcher, LaunchRequest, launch_command
from rlctl.system.mpi import (
    clean_environment,
    find_mpiexec,
    launcher_family,
    mpi_library,
    scratch_environment,
    with_home,
)

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

_MARK = "RLCTL_RANKS_OF"
_LOOK_S = 0.1
_GRACE_S = 10.0
_START_S = 60.0


class LauncherName(StrEnum):
    """Launcher of the ranks: ``auto`` is srun inside a Slurm job, else mpiexec."""

    AUTO = "auto"
    MPIEXEC = "mpiexec"
    SRUN = "srun"


@dataclass(frozen=True, slots=True)
class LauncherCommand:
    """A launcher's command, to be put before a program.

    Attributes:
        command: with its flags.
        environment: complete.
        name: for messages.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    name: str


def prepare(
    ranks: int, starter: LauncherName, scratch: Path, environment: Mapping[str, str] = os.environ
) -> LauncherCommand:
    """The launcher for so many ranks of this Python, such that they survive each other where the MPI can.

    Args:
        ranks: how many.
        starter: which launcher.
        scratch: a folder for files of Open MPI, removed by the caller.

    Raises:
        LaunchError: there is none, or it belongs to another MPI than mpi4py.
    """
    if starter is LauncherName.AUTO:
        inside = "SLURM_JOB_ID" in environment and shutil.which("srun", path=environment.get("PATH"))
        starter = LauncherName.SRUN if inside else LauncherName.MPIEXEC
    if starter is LauncherName.SRUN:
        return _srun(ranks, environment)
    path = find_mpiexec()
    if path is None:
        raise LaunchError("--ranks: no mpiexec on this machine: pip install 'rlctl[mpi]', or load your site's module")
    family, clean = launcher_family(path), clean_environment(environment)
    _check_same(family, f"{path} is of {family}", clean)
    command, own = launch_command(family, LaunchRequest(ranks, program=path, survive=family is Launcher.OPENMPI))
    asked = {name: environment[name] for name in ("OMP_NUM_THREADS",) if name in environment}  # as under srun
    return LauncherCommand(command, clean | own | scratch_environment(scratch) | asked, f"mpiexec of {family}")


def _srun(ranks: int, environment: Mapping[str, str]) -> LauncherCommand:
    path = shutil.which("srun", path=environment.get("PATH"))
    if path is None:
        raise LaunchError("--launcher srun: no srun on this machine: leave --launcher out, or run in a Slurm job")
    environment = with_home(environment)
    family = mpi_library(sys.executable, environment)
    if family is None:
        raise LaunchError("--ranks: mpi4py does not load its MPI: load your site's module, and see rlctl doctor")
    openmpi = family is Launcher.OPENMPI
    gather = "pmix" if openmpi else "pmi2"
    if (why := pmi_problem(gather)) is not None:
        raise LaunchError(f"--ranks: {why}, or use --launcher mpiexec")
    command = [path, "--overlap", "--cpu-bind=none", f"--mpi={gather}"]
    command += ["--kill-on-bad-exit=0", "--no-kill"] if openmpi else ["--kill-on-bad-exit=1"]
    # Over all nodes of the job, in blocks: an environment's ranks are neighbours.
    command += ["--distribution=block", f"--ntasks={ranks}"]
    own = AS_ROOT | {"OMPI_MCA_mpi_ft_enable": "1", "OMPI_MCA_pml": "ob1"} if openmpi else {}
    return LauncherCommand(command, {"OMP_NUM_THREADS": "1", **own, **environment}, f"srun with {family}")


def _check_same(family: Launcher, found: str, environment: Mapping[str, str]) -> None:
    own = mpi_library(sys.executable, environment)
    if own is not None and own is not family:
        raise LaunchError(
            f"--ranks: {found}, but mpi4py uses {own}: each rank would run alone; install one MPI only, see "
            "rlctl doctor"
        )


def run(
    program: Sequence[str],
    ranks: int,
    starter: LauncherName,
    out: Path,
    again: Sequence[str],
    resumable: Callable[[], bool],
) -> int:
    """Run a program on ranks until it ends. The first SIGINT, SIGTERM or SIGUSR1 asks it to write a checkpoint and end,
    the second kills it.

    Args:
        program: with its arguments.
        ranks: how many.
        starter: which launcher.
        out: the run folder; the status file is next to it, where all nodes see it.
        again: the command that continues, for messages.
        resumable: whether there is a checkpoint to continue from.

    Returns:
        the exit code: that of the ranks, 75 if they died or were asked by SIGUSR1 to end, and there is a checkpoint, or
        130 where the user stopped it.

    Raises:
        LaunchError: there is no launcher.
    """
    token = secrets.token_hex(8)
    out.parent.mkdir(parents=True, exist_ok=True)
    status = out.parent / f".{out.name}.{token}.ranks"
    scratch = Path(tempfile.mkdtemp(prefix="rlctl-"))
    before = stale_shm.present()
    asked: list[int] = []  # by signals, in order
    try:
        start = prepare(ranks, starter, scratch)
        status.touch()
        environment = {**start.environment, status_file.VARIABLE: str(status.absolute()), _MARK: token}
        with requested_by_signals(asked.append, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)):
            # A session of its own: Ctrl-C in a terminal would reach launcher and ranks directly. If this process is
            # killed, the ranks are asked to end as by a first signal.
            process = subprocess.Popen(
                [*start.command, *program],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGUSR1),
            )
            try:
                _supervise(process, asked, status)
            finally:
                reap([process.pid], f"{_MARK}={token}".encode(), _GRACE_S)
                process.wait()
            code = status_file.read(status)[1]
        return _exit_code(code, process.returncode, asked, start.name, again, resumable())
    finally:
        stale_shm.remove_since(before)
        status.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _supervise(process: subprocess.Popen[bytes], asked: Sequence[int], status: Path) -> None:
    """Wait until the launcher has ended or must be ended: after a second signal, or when a reported end hangs."""
    passed_on, began, ending = False, time.monotonic(), None
    while True:
        try:
            process.wait(_LOOK_S)
            return
        except subprocess.TimeoutExpired:
            pass
        now, (ready, code) = time.monotonic(), status_file.read(status)
        if code is not None and ending is None:
            ending = now
        if ending is not None and now - ending > _GRACE_S:
            return
        if not asked:
            continue
        if len(asked) > 1:
            return
        if not passed_on and ready:
            send_signal([process.pid], signal.SIGUSR1)  # launchers pass it on to all ranks
            passed_on = True
        if not passed_on and now - began > _START_S:
            return  # ranks that have not found each other in so long handle no signal


def _exit_code(
    code: int | None, launcher_code: int, asked: Sequence[int], name: str, again: Sequence[str], resumable: bool
) -> int:
    to_go_on = f"; to resume: {shlex.join(again)}" if resumable else ""
    if code is not None and code != INTERRUPTED:
        return code
    if asked or (code == INTERRUPTED and launcher_code == 0):  # or batch systems signal ranks themselves
        _say(f"stopped{to_go_on or ' before the first checkpoint'}")
        by_hand = not resumable or (asked and asked[0] != signal.SIGUSR1)
        return INTERRUPTED if by_hand else RESUMABLE
    how = f"signal {-launcher_code}" if launcher_code < 0 else f"exit code {launcher_code}"
    _say(f"the ranks died before the training was over ({name}: {how}){to_go_on or '; there is no checkpoint yet'}")
    return RESUMABLE if resumable else EXIT_CODE


def _say(text: str) -> None:
    print(f"rlctl: {text}", file=sys.stderr, flush=True)
