"""An exec: a program in a session of its own, and what came of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlctl.executors.mpi import clean_environment, mpiexec_command, scratch_environment
from rlctl.executors.reaper import TOKEN, Lease, session_processes
from rlctl.executors.slots import Placement
from rlctl.task import Failure, TaskSpec

LOGS = "logs"
"""Folder in the working folder where the output of each attempt is kept."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended by itself."""

    values: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""


class Program:
    """One attempt of an exec, running.

    Attributes:
        sid: its session, which is the pid of its first process (of mpiexec, where there are several ranks).
    """

    def __init__(self, spec: TaskSpec, attempt: int, placement: Placement, workdir: Path, lease: Lease) -> None:
        """Start it.

        Raises:
            OSError: the program or its files cannot be opened.
            LaunchError: there is no mpiexec.
        """
        self._spec = spec
        self._workdir = workdir
        name = f"{spec.uid}.{attempt}".replace(os.sep, "_")
        self._errors = workdir / LOGS / f"{name}.err"
        self._scratch = lease.scratch / name
        command = [sys.executable if spec.executable == "python" else str(spec.executable), *spec.arguments]
        environment = clean_environment(os.environ) | {
            "OMP_NUM_THREADS": str(spec.resources.cores_per_rank),
            "CUDA_VISIBLE_DEVICES": ",".join(device for device, _ in placement.gpus),
            TOKEN: lease.token,
        }
        if spec.resources.ranks > 1:
            command = [*mpiexec_command(spec.resources.ranks), *command]
            lease.scratch.mkdir(mode=0o700, exist_ok=True)
            self._scratch.mkdir()
            environment |= scratch_environment(self._scratch)
        if spec.result_file is not None:
            (workdir / spec.result_file).unlink(missing_ok=True)  # an earlier attempt's is not this one's
        self._errors.parent.mkdir(exist_ok=True)
        with open(self._errors.with_suffix(".out"), "wb") as out, open(self._errors, "wb") as err:
            self._process = _start_on(
                placement.cores, command, cwd=workdir, stdout=out, stderr=err, env=environment | dict(spec.environment)
            )
        self.sid = self._process.pid
        self.pidfd = os.pidfd_open(self.sid) if hasattr(os, "pidfd_open") else None

    def ended(self) -> bool:
        """Whether the first process has ended. It stays a zombie until ``ending``, so its number stays ours."""
        if self.pidfd is None:
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.sid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def remains(self) -> list[int]:
        """What is still alive of its session."""
        return session_processes(self.sid)

    def ending(self) -> Ending:
        """Exit code and result file of an ended program, read as the task's outcome."""
        code = self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)
        spec = self._spec
        declared = dict(spec.failure_codes).get(code)
        if code == 0:
            return self._result()
        if declared is not None:
            return Ending(failure=declared, message=self._last_line() or f"exit code {code}")
        number = -code
        if spec.resources.ranks > 1 and code > 128:
            number = code - 128  # how mpiexec tells that a rank was killed
        if number in {s.value for s in signal.Signals}:
            return Ending(failure=Failure.SIGNAL, message=f"killed by {signal.Signals(number).name}")
        return Ending(failure=Failure.EXIT, message=self._last_line() or f"exit code {code}")

    def close(self) -> None:
        """Release what is held, when nothing of it is alive."""
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def _result(self) -> Ending:
        if self._spec.result_file is None:
            return Ending()
        path = self._workdir / self._spec.result_file
        try:
            values = json.loads(path.read_bytes(), parse_constant=_refuse)
        except (OSError, ValueError, RecursionError) as error:
            return Ending(failure=Failure.GARBAGE, message=f"{self._spec.result_file}: {error}")
        if not isinstance(values, dict):
            return Ending(failure=Failure.GARBAGE, message=f"{self._spec.result_file}: not a mapping")
        return Ending(values=values)

    def _last_line(self) -> str:
        try:
            with open(self._errors, "rb") as file:
                file.seek(max(0, self._errors.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        # Under mpiexec the program's own words come first, then mpiexec's boxed explanation.
        own = lines[: next((i for i, line in enumerate(lines) if line.startswith("-----")), None)]
        words = [line.strip() for line in own or lines if line.strip()]
        return words[-1][:200] if words else ""


def _start_on(cores: tuple[int, ...], command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that may use only these cores from its first instruction on.

    A child inherits the affinity of the thread that makes it. This needs no code between fork and exec, which is not
    safe in a process with threads.
    """
    options |= {"stdin": subprocess.DEVNULL, "start_new_session": True}
    if not hasattr(os, "sched_setaffinity"):
        return subprocess.Popen(command, **options)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        return subprocess.Popen(command, **options)
    finally:
        os.sched_setaffinity(0, before)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON knows")
