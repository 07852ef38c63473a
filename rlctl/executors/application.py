"""Applications: programs that need an environment of their own (another Python, modules, a container, another MPI).

The executor's options describe an application, since it belongs to the machine; tasks name it. Its environment is
built once, at its first use, so that no shell runs for a task.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rlctl.core.errors import LaunchError, one_line
from rlctl.core.task import TaskSpec
from rlctl.system.mpi import check_same_mpi, mpiexec_command

THREADS = "OMP_NUM_THREADS"

_LOGIN_SHELL_S = 120.0
"""Timeout of a login shell, which may read its files from a slow network."""


class Application(BaseModel):
    """The environment of programs of one kind; tasks name it as their ``application``.

    Attributes:
        venv: folder of a virtual environment, relative to the configuration file; its ``bin`` comes first on PATH, and
            ``python`` means its interpreter. ``~`` and ``$NAME`` are replaced, in ``mpiexec`` too.
        modules: environment modules to load, by ``module load`` of a login shell.
        container: command that precedes the program, e.g. ``[apptainer, exec, image.sif]``.
        mpiexec: launcher of its MPI; if left out, the first on its PATH.
        environment: variables, set last; they override those of rlctl, except for GPU masks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    venv: str | None = None
    modules: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    mpiexec: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)

    @property
    def python(self) -> str | None:
        """Interpreter of its virtual environment, whatever PATH has, or None without one.

        Raises:
            LaunchError: the environment has no executable interpreter.
        """
        if self.venv is None:
            return None
        found = Path(self.venv).absolute() / "bin" / "python"
        if not os.access(found, os.X_OK) or found.is_dir():
            raise LaunchError(f"{found}: no interpreter that can be executed: make the environment again")
        return str(found)

    def check(self, bare: Mapping[str, str]) -> None:
        """Raise LaunchError if the environment, the container runtime or the MPI launcher is missing."""
        path = self.variables(bare).get("PATH")
        for what, program in (("container", self.container[0] if self.container else None), ("mpiexec", self.mpiexec)):
            if program is not None and shutil.which(program, path=path) is None:
                raise LaunchError(f"{what}: {program}: no such program that can be executed: correct it, or install it")

    def variables(self, bare: Mapping[str, str]) -> dict[str, str]:
        """The environment of its programs, made from one without variables of a batch job.

        Raises:
            LaunchError: the virtual environment is missing, or a module cannot be loaded.
        """
        found = dict(bare)
        if self.venv is not None:
            folder = Path(self.venv).absolute()  # its programs run elsewhere
            if not (folder / "bin").is_dir():
                missing = "it is a file" if folder.exists() else "it is not there"
                why = "it has no folder bin" if folder.is_dir() else missing
                raise LaunchError(f"{folder}: no virtual environment, {why}: correct the path")
            found.pop("PYTHONHOME", None)
            found["VIRTUAL_ENV"] = str(folder)
            found["PATH"] = f"{folder / 'bin'}{os.pathsep}{found.get('PATH', os.defpath)}"
        if self.modules:
            found = dict(_loaded(self.modules, tuple(sorted(found.items()))))
        return found | dict(self.environment)


class ProgramEnvironments:
    """The environments of programs: one that all have, and what their applications add to it.

    Args:
        bare: the environment of all programs.
        applications: by name.
    """

    def __init__(self, bare: Mapping[str, str], applications: Mapping[str, Application] | None = None) -> None:
        self.bare = bare
        self._applications = applications or {}
        self._made: dict[str | None, tuple[Mapping[str, str], Mapping[str, str]]] = {}

    def application(self, spec: TaskSpec) -> Application | None:
        """The application of a program; raises LaunchError if it is not described."""
        if spec.application is None:
            return None
        if spec.application not in self._applications:
            known = ", ".join(sorted(self._applications)) or "none"
            raise LaunchError(
                f"task {spec.uid}: application {spec.application!r} is not described: add it to "
                f"executor.options.applications (there: {known})"
            )
        return self._applications[spec.application]

    def variables(self, spec: TaskSpec) -> Mapping[str, str]:
        """The whole environment of a program, but for the number of threads that rlctl sets."""
        return self._of(spec)[0]

    def added(self, spec: TaskSpec) -> Mapping[str, str]:
        """What the application of a program adds to ``bare``; its own variables even if these are the same there."""
        return self._of(spec)[1]

    def command(self, spec: TaskSpec) -> list[str]:
        """The program and its arguments, without a launcher."""
        application, executable = self.application(spec), str(spec.executable)
        if application is None:
            return [sys.executable if executable == "python" else executable, *spec.arguments]
        if application.container:
            return [*application.container, executable, *spec.arguments]
        own = application.python if executable == "python" else None
        path = spec.environment.get("PATH", self.variables(spec).get("PATH"))
        return [own or shutil.which(executable, path=path) or executable, *spec.arguments]

    def wrapper(self, spec: TaskSpec) -> list[str]:
        """The command that starts the program and its launcher; empty: there is none."""
        return [sys.executable if word == "python" and not i else word for i, word in enumerate(spec.wrapper)]

    def mpiexec(self, spec: TaskSpec, ranks: int) -> list[str]:
        """The launcher of a program, and its flags; raises LaunchError if there is none."""
        application = self.application(spec)
        return mpiexec_command(ranks, application.mpiexec if application else None, self.variables(spec))

    def check(self, spec: TaskSpec) -> None:
        """Find out now, not when it starts, what keeps a program from starting.

        Raises:
            LaunchError: its application is not described or cannot be had, there is no launcher, or the launcher is of
                another MPI than the program, so that every rank would take itself for the only one.
        """
        application = self.application(spec)
        if spec.resources.ranks > 1:
            launcher = self.mpiexec(spec, spec.resources.ranks)
            if application is None or not application.container:  # what is inside cannot be seen from here
                check_same_mpi(str(spec.uid), launcher[0], self.command(spec), self.variables(spec))

    def check_installed(self, specs: Iterable[TaskSpec]) -> None:
        """Raise LaunchError if something that tasks name is not here: applications, programs, launchers, modules."""
        for name, application in self._applications.items():
            try:
                application.check(self.bare)
            except LaunchError as error:
                raise LaunchError(error.problem, ("executor", "options", "applications", name)) from error
        for spec in specs:
            try:
                if spec.function is not None:
                    _check_module(spec.function)
                else:
                    self._check_program(spec)
            except LaunchError as error:
                problem = error.problem.removeprefix(f"task {spec.uid}: ")
                raise LaunchError(f"task {spec.uid}: {problem}", error.key) from error

    def _check_program(self, spec: TaskSpec) -> None:
        self.check(spec)
        program = self.command(spec)[0]
        if os.path.isabs(program) or os.sep not in program:  # another path begins in a folder that is not there yet
            path = spec.environment.get("PATH", self.variables(spec).get("PATH"))
            if shutil.which(program, path=path) is None:
                where = "" if os.sep in program else " on PATH"
                where += "" if spec.application is None else f" of application {spec.application}"
                raise LaunchError(
                    f"{one_line(program)}: no such program that can be executed{where}: install it, or correct the path"
                )

    def _of(self, spec: TaskSpec) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """``variables`` and ``added``, made once for each application."""
        if spec.application not in self._made:
            application = self.application(spec)
            shared = {name: value for name, value in self.bare.items() if name != THREADS}
            variables, added = shared, dict[str, str]()
            if application is not None:
                variables = application.variables(shared)
                added = {name: value for name, value in variables.items() if shared.get(name) != value}
                added |= application.environment
            self._made[spec.application] = (variables, added)
        return self._made[spec.application]


def _check_module(function: str) -> None:
    module = function.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise LaunchError(f"there is no module {module} to import {function} from: install its package")


@functools.lru_cache(maxsize=64)
def _loaded(modules: tuple[str, ...], before: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The environment after ``module load`` in a login shell."""
    shell = shutil.which("bash")
    if shell is None:
        raise LaunchError("modules are loaded by bash, and there is none on PATH: leave out modules, or install bash")
    marker = "=== rlctl: what follows is the environment ==="  # a login shell may print a greeting
    script = f"module load \"$@\" && printf %s '{marker}' && env -0"
    load = f"module load {' '.join(modules)}"
    try:
        done = subprocess.run(
            [shell, "-lc", script, "modules", *modules],
            env=dict(before),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOGIN_SHELL_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{load} does not come to its end ({error}): try it in a login shell") from error
    if done.returncode != 0:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise LaunchError(f"{load} fails (it says: {said}): try it in a login shell")
    text = done.stdout.decode(errors="replace").partition(marker)[2]
    return tuple((name, value) for name, _, value in (entry.partition("=") for entry in text.split("\0")) if name)
