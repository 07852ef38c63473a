"""Applications: programs that need an environment of their own (another Python, modules, a container, another MPI).

The executor's options describe an application, since it belongs to the machine; tasks name it. Its environment is
built once, at its first use, so that no shell runs for a task.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rlctl.core.errors import LaunchError

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
