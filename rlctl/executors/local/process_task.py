"""Programs: the command and the environment of an attempt, and what came of it."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, described
from rlctl.core.task import Failure
from rlctl.executors.application import THREADS, ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions.large_results import INLINE_BYTES, by_reference, read_object
from rlctl.executors.local.forked_module import is_module
from rlctl.executors.local.processes import signal_name
from rlctl.executors.naming import file_name
from rlctl.system.devices import without_masks
from rlctl.system.mpi import scratch_environment
from rlctl.system.wrapper_variables import out_of_sight

LOGS = "logs"
"""Folder in the working folder where the output of each attempt is kept."""

WRAPPER_MB = 64
"""MiB that a wrapper may use beside its program."""

_LAUNCHERS = ("srun: ", "slurmstepd")


class ProcessTask:
    """One attempt of a program: what the supervisor is asked to start, and how its end is read.

    Attributes:
        pid, start: its first process (mpiexec, where there are several ranks) and that one's start time; 0: unknown.
        began: when it began to run, on the monotonic clock.
        stopping: whether it is being stopped by request.
        lost: whether a node that it ran on has gone.
        control: command that signals it where it runs on other machines; names of signals follow.
        errors: file of its standard error.
    """

    under_launcher = False  # whether also a single rank is started by a launcher, which tells of signals by 128 + n

    def __init__(self, attempt: Attempt, workdir: Path, scratch: Path, environments: ProgramEnvironments) -> None:
        self.attempt = attempt
        self.pid, self.start = 0, 0
        self.began = time.monotonic() - attempt.ran_s
        self.stopping = self.signalled = self.lost = False
        self.control: list[str] | None = None
        self.command: list[str] = [str(attempt.spec.executable)]
        self._spec, self._need = attempt.spec, attempt.need
        self._workdir, self._lease_scratch = workdir, scratch
        self._environments = environments
        self._name = file_name(attempt.key)
        self._logs = os.path.join(workdir, LOGS)
        self.errors = os.path.join(self._logs, f"{self._name}.err")

    def prepare(self, gpus: Mapping[str, str]) -> dict[str, Any]:
        """Make the files that it needs; returns ``command``, ``environment``, ``outputs`` and ``forked``.

        Raises:
            OSError: its files cannot be made.
            LaunchError: there is no such program, or no mpiexec.
        """
        spec = self._spec
        environment = {THREADS: str(self._need.cores_per_rank), **self._environments.added(spec), **spec.environment}
        command = self._environments.command(spec)
        if spec.result_file is not None:
            (self._workdir / spec.result_file).unlink(missing_ok=True)  # an earlier attempt's is not this one's
        if not os.path.isdir(self._logs):
            Path(self._logs).mkdir(exist_ok=True)
        if spec.wrapper:
            environment = out_of_sight(environment)
        # A program that chose its GPUs itself would take those of another task.
        request = self.launch(command, without_masks(environment), gpus)
        return {**request, "forked": bool(spec.wrapper) and is_module(request["command"])}

    def launch(self, command: list[str], environment: dict[str, str], gpus: Mapping[str, str]) -> dict[str, Any]:
        """The request that starts this command, under mpiexec where there are several ranks.

        Args:
            environment: what its resources, its application and the task add, in this order.
            gpus: variables that show it its GPUs.
        """
        if self._need.ranks > 1:
            command = [*self._environments.mpiexec(self._spec, self._need.ranks), *command]
            self._lease_scratch.mkdir(mode=0o700, exist_ok=True)
            self._scratch.mkdir(exist_ok=True)
            environment = scratch_environment(self._scratch) | environment
        wrapper = self._environments.wrapper(self._spec)
        if not wrapper or os.sep not in command[0]:  # a wrapper says itself where relative paths begin
            path = environment.get("PATH", self._environments.variables(self._spec).get("PATH"))
            command = [_found(command[0], path, str(self._workdir)), *command[1:]]
        self.command = [*wrapper, *command]
        outputs = (f"{self.errors[:-3]}out", self.errors)
        return {"command": self.command, "environment": {**environment, **gpus}, "outputs": outputs}

    @property
    def _scratch(self) -> Path:
        return self._lease_scratch / self._name

    def limits(self, enforce_memory: bool, output_mb: float | None) -> dict[str, float | None]:
        """What it may use, for the supervisor."""
        memory_mb = self._need.memory_per_rank_mb if enforce_memory else None
        wrapper_mb = WRAPPER_MB if self._spec.wrapper else 0
        return {
            "walltime_s": self._spec.walltime_s,
            "memory_mb": None if memory_mb is None else memory_mb * self._need.ranks + wrapper_mb,
            "output_mb": output_mb,
        }

    def outcome(self, ended: Mapping[str, Any]) -> AttemptOutcome:
        """The outcome, by the supervisor's message about its end; ``Failure.GARBAGE`` if it cannot be read."""
        self.clean()
        try:
            return self.read(ended["why"], ended["code"])._replace(usage=ended.get("usage", {}))
        except Exception as error:
            return AttemptOutcome(failure=Failure.GARBAGE, message=f"its end cannot be read: {described(error)}")

    def clean(self) -> None:
        """Remove what only a running program needs."""
        if self._need.ranks > 1:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def read(self, why: str | None, code: int | None) -> AttemptOutcome:
        """The outcome that follows from why it was stopped and its exit code, where these are known."""
        spec = self._spec
        if self.lost and not self.stopping:  # whatever its launcher says
            return AttemptOutcome(failure=Failure.LOST, message="a node that it ran on was lost")
        if why == "stopped" and not self.stopping:
            return AttemptOutcome(failure=Failure.LOST, message="it was stopped when there was no controller")
        if why == "stopped":
            return AttemptOutcome(stopped=True)
        if why == "walltime":
            return AttemptOutcome(failure=Failure.TIMEOUT, message=f"stopped at its walltime of {spec.walltime_s:g} s")
        if why == "memory":
            limit = (self._need.memory_per_rank_mb or 0) * self._need.ranks
            return AttemptOutcome(failure=Failure.MEMORY, message=f"used more than its {limit} MiB of memory")
        if why == "output":
            return AttemptOutcome(failure=Failure.OUTPUT, message="wrote more to its output than is kept")
        if code is None:  # its supervisor was killed: only a result tells that it came to its end
            result = self._result()
            complete = spec.result_file is not None and result.failure is None
            return result if complete else AttemptOutcome(failure=Failure.LOST, message="how it ended was not observed")
        declared = dict(spec.failure_codes).get(code)
        if code == 0:
            return self._result()
        if declared is not None:
            return AttemptOutcome(failure=declared, message=self._last_line() or f"exit code {code}")
        number = -code
        if (self.under_launcher or self._need.ranks > 1) and code > 128:
            number = code - 128  # how launchers tell that a rank was killed
        if number in signal.valid_signals():
            return AttemptOutcome(failure=Failure.SIGNAL, message=f"killed by {signal_name(number)}")
        return AttemptOutcome(failure=Failure.EXIT, message=self._last_line() or f"exit code {code}")

    def _result(self) -> AttemptOutcome:
        if self._spec.result_file is None:
            return AttemptOutcome()
        path = self._workdir / self._spec.result_file
        try:
            if path.exists() and not path.is_file():  # a pipe would hold up everything
                raise ValueError("not a file")
            data = path.read_bytes()
            values = read_object(data)
            if len(data) > INLINE_BYTES:
                values = by_reference(values, self._workdir, self.attempt.key)
        except (OSError, ValueError) as error:
            return AttemptOutcome(failure=Failure.GARBAGE, message=f"{self._spec.result_file}: {error}")
        return AttemptOutcome(values=values)

    def last_errors(self, most: int = 1 << 16) -> str:
        """The last bytes of its standard error, at most so many."""
        try:
            with open(self.errors, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def _last_line(self) -> str:
        lines = self.last_errors(4096).strip().splitlines()
        # Under mpiexec the program's own words come first, then mpiexec's boxed explanation; srun's stand among them.
        own = lines[: next((i for i, line in enumerate(lines) if line.startswith("-----")), None)]
        words = [line.strip() for line in own or lines if line.strip() and not line.startswith(_LAUNCHERS)]
        return words[-1][:200] if words else ""


@functools.lru_cache(maxsize=256)  # the search is a dozen system calls, and the same for thousands of tasks
def _found(program: str, path: str | None, workdir: str) -> str:
    """Where a program is: on PATH, or relative to the working folder; raises LaunchError if PATH has none."""
    if os.sep in program:
        return os.path.join(workdir, program)
    found = shutil.which(program, path=path)
    if found is None:
        raise LaunchError(f"{program}: no such program on PATH: install it, or give its path")
    return found
