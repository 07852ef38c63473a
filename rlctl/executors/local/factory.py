"""The local executor as configurations know it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlctl.config.validation import check_options
from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.event_log import Journal
from rlctl.executors.local.backend import LocalExecutor, Settings
from rlctl.executors.local.inventory import Layout
from rlctl.executors.local.process_task import check_installed
from rlctl.executors.recovery import KINDS, Past
from rlctl.executors.sharing import Share


class ApplicationOptions(BaseModel):
    """The environment of programs of one kind; tasks name it as their ``application``.

    Attributes:
        venv: folder of a virtual environment, relative to the configuration file; its ``bin`` comes first on PATH, and
            ``python`` means its interpreter. ``~`` and ``$NAME`` are replaced, in ``mpiexec`` too.
        modules: environment modules to load, by ``module load`` of a login shell.
        container: what stands before the program, e.g. ``[apptainer, exec, image.sif]``.
        mpiexec: launcher of its MPI; if left out, the first on its PATH.
        environment: variables, set last; they win over what rlctl sets, but for masks of GPUs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    venv: str | None = None
    modules: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    mpiexec: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)


class CommonOptions(BaseModel):
    """``executor.options`` of every executor that starts programs by a supervisor.

    Attributes:
        lease_s: how long programs go on when the controller has died. ``--resume`` within that time takes them over.
        backfill: whether tasks may overtake one that does not fit yet.
        output_mb: a task that writes more than so many MiB to its standard output or error is stopped; null: never.
        applications: environments of programs, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lease_s: float = Field(default=300.0, ge=0.0, le=1e7)
    backfill: bool = False
    output_mb: float | None = Field(default=1024.0, gt=0.0)
    applications: dict[str, ApplicationOptions] = Field(default_factory=dict)

    @classmethod
    def portable(cls, options: Mapping[str, Any], resolve: Callable[[str], Path]) -> Mapping[str, Any]:
        """The options with absolute paths; see ``rlctl.executors.base.ExecutorFactory``."""
        checked = check_options(cls, options, "executor.options")
        applications = dict(options.get("applications", {}))
        for name, application in checked.applications.items():
            for key, path in (("venv", application.venv), ("mpiexec", application.mpiexec)):
                if path is not None and (key == "venv" or os.sep in path):
                    path = os.path.expandvars(os.path.expanduser(path))
                    applications[name] = {**applications[name], key: str(resolve(path).absolute())}
        return {**options, "applications": applications} if applications else options

    def check_elsewhere(self, specs: Sequence[TaskSpec]) -> list[str]:
        """What is not on this machine, where it is others that will need it."""
        try:
            check_installed(specs, self.described())
        except LaunchError as error:
            return [f"{error}; that is so on this machine, and whether the nodes have it shows only there"]
        return []

    def described(self) -> dict[str, Application]:
        """The applications."""
        return {name: Application(**vars(options)) for name, options in self.applications.items()}


class Options(CommonOptions):
    """``executor.options`` of the local executor.

    Attributes:
        pin: whether tasks may use only the cores that they were given.
        oversubscribe: whether more cores and GPUs than this machine has may be booked, to rehearse another one's shape.
        enforce_memory: whether a task that uses more memory than it asked for is stopped.
    """

    pin: bool = True
    oversubscribe: bool = False
    enforce_memory: bool = True


class Local:
    """Tasks as processes on this machine; see ``rlctl.executors.base.ExecutorFactory``.

    Raises:
        ConfigError: unknown options.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = check_options(Options, options, "executor.options")

    portable = Options.portable

    def check(self, capacity: Capacity) -> None:
        """Refuse more cores or GPUs than this process may use.

        Raises:
            LaunchError: this machine has less.
        """
        capacity.require_equal("the local executor")
        Layout(capacity, oversubscribe=self.options.oversubscribe)

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Find out whether what tasks name is here.

        Raises:
            LaunchError: something is not.
        """
        check_installed(specs, self.options.described())
        return []

    def open(
        self, capacity: Capacity, workdir: Path, journal: Journal, start_s: float, share: Share | None = None
    ) -> LocalExecutor:
        """Take the machine, and what a former controller has left on it."""
        options = self.options
        settings = Settings(
            pin=options.pin,
            lease_s=options.lease_s,
            memory=options.enforce_memory,
            output_mb=options.output_mb,
            oversubscribe=options.oversubscribe,
            applications=options.described(),
        )
        past = Past.read(journal.records(kinds=KINDS)) if share is None else share.past
        return LocalExecutor(
            capacity,
            workdir,
            journal,
            start_s,
            eager=False,
            backfill=options.backfill,
            settings=settings,
            past=past,
            share=share,
        )
