"""Programs: the command and the environment of an attempt, and what came of it."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, described
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.devices import without_masks
from rlctl.executors.functions.large_results import INLINE_BYTES, by_reference, read_object
from rlctl.executors.local.processes import signal_name
from rlctl.executors.mpi import check_same_mpi, clean_environment, mpiexec_command, scratch_environment
from rlctl.executors.naming import file_name

LOGS = "logs"
"""Folder in the working folder where the output of each attempt is kept."""

_THREADS = "OMP_NUM_THREADS"
_LAUNCHERS = ("srun: ", "slurmstepd")


def check_program(spec: TaskSpec, applications: Mapping[str, Application], bare: Mapping[str, str]) -> None:
    """Find out now, not when it starts, what keeps a program from starting.

    Raises:
        LaunchError: its application is not described or cannot be had, there is no launcher, or the launcher is of
            another MPI than the program, so that every rank would take itself for the only one.
    """
    application = application_of(spec, applications)
    if spec.resources.ranks > 1:
        variables = variables_of(application, bare)
        command = own_command(spec, application, variables)
        launcher = mpiexec_command(spec.resources.ranks, application.mpiexec if application else None, variables)
        if application is None or not application.container:  # what is inside cannot be seen from here
            check_same_mpi(str(spec.uid), launcher[0], command, variables)


def check_installed(specs: Iterable[TaskSpec], applications: Mapping[str, Application]) -> None:
    """Find out whether what tasks name is on this machine: applications, programs, launchers, modules of functions.

    Raises:
        LaunchError: something is not.
    """
    bare = clean_environment(os.environ)
    for name, application in applications.items():
        try:
            application.check(bare)
        except LaunchError as error:
            raise LaunchError(error.problem, ("executor", "options", "applications", name)) from error
    for spec in specs:
        try:
            _check_installed(spec, applications, bare)
        except LaunchError as error:
            problem = error.problem.removeprefix(f"task {spec.uid}: ")
            raise LaunchError(f"task {spec.uid}: {problem}", error.key) from error


def _check_installed(spec: TaskSpec, applications: Mapping[str, Application], bare: Mapping[str, str]) -> None:
    if spec.function is not None:
        module = spec.function.partition(":")[0]
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise LaunchError(f"there is no module {module} to import {spec.function} from: install its package")
        return
    check_program(spec, applications, bare)
    application = application_of(spec, applications)
    variables = bare if application is None else application.variables(bare)
    program = own_command(spec, application, variables)[0]
    if os.path.isabs(program) or os.sep not in program:  # another path begins in a folder that is not there yet
        path = spec.environment.get("PATH", variables.get("PATH"))
        if shutil.which(program, path=path) is None:
            where = "" if os.sep in program else " on PATH"
            where += "" if spec.application is None else f" of application {spec.application}"
            raise LaunchError(
                f"{program}: no such program that can be executed{where}: install it, or correct the path"
            )


class ProcessTask:
    """One attempt of a program: what the supervisor is asked to start, and how its end is read.

    Attributes:
        attempt: the attempt.
        pid, start: its first process (mpiexec, where there are several ranks) and that one's start time; 0: unknown.
        began: when it began to run, on the monotonic clock.
        stopping: whether it is being stopped by request.
        command: as ``prepare`` has made it.
        control: command that signals it where it runs on other machines; names of signals follow.
        errors: file of its standard error.
    """

    under_launcher = False  # whether also a single rank is started by a launcher, which tells of signals by 128 + n

    def __init__(
        self,
        attempt: Attempt,
        workdir: Path,
        scratch: Path,
        applications: Mapping[str, Application],
        bare: Mapping[str, str],
    ) -> None:
        self.attempt = attempt
        self.pid, self.start = 0, 0
        self.began = time.monotonic() - attempt.ran_s
        self.stopping = False
        self.control: list[str] | None = None
        self.command: list[str] = [str(attempt.spec.executable)]
        self._spec, self._need = attempt.spec, attempt.need
        self._workdir = workdir
        self._applications = applications
        self._bare = bare
        name = file_name(attempt.key)
        self.errors = str(workdir / LOGS / f"{name}.err")
        self._lease_scratch = scratch
        self._scratch = scratch / name

    def prepare(self, gpus: Mapping[str, str]) -> dict[str, Any]:
        """Make the files that it needs; returns ``command``, ``environment`` and ``outputs`` for the supervisor.

        Args:
            gpus: variables that show it the GPUs that it may use.

        Raises:
            OSError: its files cannot be made.
            LaunchError: there is no such program, or no mpiexec.
        """
        spec, application = self._spec, application_of(self._spec, self._applications)
        variables = variables_of(application, self._bare)
        shared = variables_of(None, self._bare)  # the supervisor has these
        environment = {_THREADS: str(self._need.cores_per_rank)}
        environment |= {name: value for name, value in variables.items() if shared.get(name) != value}
        if application is not None:  # also what is so anyway: it is to win over what is set here
            environment |= application.environment
        # Masks of GPUs keep to the books: a program that chose its own would take those of another task.
        environment = without_masks({**environment, **spec.environment})
        command = own_command(spec, application, variables)
        if spec.result_file is not None:
            (self._workdir / spec.result_file).unlink(missing_ok=True)  # an earlier attempt's is not this one's
        (self._workdir / LOGS).mkdir(exist_ok=True)
        return self.launch(command, environment, variables, gpus)

    def launch(
        self, command: list[str], environment: dict[str, str], variables: Mapping[str, str], gpus: Mapping[str, str]
    ) -> dict[str, Any]:
        """How this command is started here: as it is, or under mpiexec.

        Args:
            command: program and arguments.
            environment: what its resources, its application and the task add, in this order.
            variables: the whole environment of its application.
            gpus: variables that show it the GPUs that it may use.
        """
        if self._need.ranks > 1:
            application = application_of(self._spec, self._applications)
            launcher = mpiexec_command(self._need.ranks, application.mpiexec if application else None, variables)
            command = [*launcher, *command]
            self._lease_scratch.mkdir(mode=0o700, exist_ok=True)
            self._scratch.mkdir(exist_ok=True)
            environment = scratch_environment(self._scratch) | environment
        environment = {**environment, **gpus}
        found = _found(command[0], environment.get("PATH", variables.get("PATH")), str(self._workdir))
        self.command = [found, *command[1:]]
        outputs = (f"{self.errors[:-3]}out", self.errors)
        return {"command": self.command, "environment": environment, "outputs": outputs}

    def outcome(self, ended: Mapping[str, Any]) -> AttemptOutcome:
        """What the supervisor's message about its end says; what cannot be read is ``Failure.GARBAGE``."""
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
        """From why it was stopped, and its exit code, where these are known."""
        spec = self._spec
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

    def _last_line(self) -> str:
        try:
            with open(self.errors, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        # Under mpiexec the program's own words come first, then mpiexec's boxed explanation; srun's stand among them.
        own = lines[: next((i for i, line in enumerate(lines) if line.startswith("-----")), None)]
        words = [line.strip() for line in own or lines if line.strip() and not line.startswith(_LAUNCHERS)]
        return words[-1][:200] if words else ""


def application_of(spec: TaskSpec, applications: Mapping[str, Application]) -> Application | None:
    """What a task's program needs.

    Raises:
        LaunchError: it is not described.
    """
    if spec.application is None:
        return None
    if spec.application not in applications:
        known = ", ".join(sorted(applications)) or "none"
        raise LaunchError(
            f"task {spec.uid}: application {spec.application!r} is not described: add it to "
            f"executor.options.applications (there: {known})"
        )
    return applications[spec.application]


def variables_of(application: Application | None, bare: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of an application's programs, but for the number of threads that rlctl sets."""
    bare = {name: value for name, value in bare.items() if name != _THREADS}
    return bare if application is None else application.variables(bare)


def own_command(spec: TaskSpec, application: Application | None, variables: Mapping[str, str]) -> list[str]:
    """The program and its arguments, without a launcher."""
    executable = str(spec.executable)
    if application is None:
        return [sys.executable if executable == "python" else executable, *spec.arguments]
    if application.container:
        return [*application.container, executable, *spec.arguments]
    own = application.python if executable == "python" else None
    path = spec.environment.get("PATH", variables.get("PATH"))
    return [own or shutil.which(executable, path=path) or executable, *spec.arguments]


@functools.lru_cache(maxsize=256)  # the search is a dozen system calls, and the same for thousands of tasks
def _found(program: str, path: str | None, workdir: str) -> str:
    """Where a program is; a relative path is one in the working folder.

    Raises:
        LaunchError: there is none on PATH.
    """
    if os.sep in program:
        return os.path.join(workdir, program)
    found = shutil.which(program, path=path)
    if found is None:
        raise LaunchError(f"{program}: no such program on PATH: install it, or give its path")
    return found
