"""Runs a piece of Python on some MPI ranks, and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rlctl.core.errors import LaunchError
from rlctl.distributed.launch.launcher import stale_shm
from rlctl.executors.local import processes
from rlctl.system.launchers import Launcher, LaunchRequest, launch_command
from rlctl.system.mpi import clean_environment, scratch_environment
from rlctl.system.mpi import launcher_family as family_of

ROOT = Path(__file__).parents[2]


def mpiexec() -> tuple[str, Launcher]:
    """That of this Python environment, and its family; the test is skipped where there is none."""
    path = Path(sys.prefix) / "bin" / "mpiexec"
    if not os.access(path, os.X_OK):
        pytest.skip(f"no {path}: pip install 'rlctl[mpi]'")
    try:
        return str(path), family_of(str(path))
    except LaunchError as error:
        pytest.skip(str(error))


def survives_a_dead_rank() -> bool:
    """Whether ranks can go on after another one was killed, under this mpiexec."""
    return mpiexec()[1] is Launcher.OPENMPI


def run_ranks(
    script: str | Path,
    ranks: int,
    arguments: Sequence[str] = (),
    timeout_s: float = 60.0,
    survive: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a script on MPI ranks, with ``rlctl`` and the folder of this file to import from.

    What a rank prints stays whole if it is flushed at the end of a line.

    Args:
        script: a file, or the source itself.
        ranks: how many.
        arguments: ``sys.argv[1:]`` of each.
        timeout_s: after which all is killed, and the test fails with what was written so far.
        survive: the others go on when a rank is killed, where the MPI can (``survives_a_dead_rank``).
        environment: further variables.

    Returns:
        the exit code of mpiexec, and what the ranks wrote.
    """
    path, family = mpiexec()
    before, variables = launch_command(family, LaunchRequest(ranks, program=path, survive=survive))
    program = [str(script)] if isinstance(script, Path) else ["-c", script]
    folders = [str(ROOT), str(ROOT / "envs"), str(ROOT / "agents"), str(Path(__file__).parent)]
    mark = f"RLCTL_TEST_RANKS={secrets.token_hex(8)}"
    scratch = Path(tempfile.mkdtemp(prefix="rlctl-test-", dir="/tmp"))  # short: names of sockets have a limit
    pieces = stale_shm.present()
    process = subprocess.Popen(
        [*before, sys.executable, *program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=clean_environment(os.environ)
        | variables
        | scratch_environment(scratch)
        | {"PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": ""}
        | dict([mark.split("=")])
        | dict(environment or {}),
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException as error:
        _end(process, mark)
        out, err = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{ranks} ranks did not end in {timeout_s:g} s; out: {out[-2000:]}; err: {err[-4000:]}")
        raise
    finally:
        _end(process, mark)
        stale_shm.remove_since(pieces)
        shutil.rmtree(scratch, ignore_errors=True)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _end(process: subprocess.Popen[str], mark: str) -> None:
    """Ranks of MPICH are in sessions of their own; all have the mark."""
    while alive := processes.family([process.pid], mark.encode()):
        processes.send_signal(alive, signal.SIGKILL)
        time.sleep(0.01)
