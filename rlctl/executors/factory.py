"""How configurations name backends: what a package registers, and how an executor is opened from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from rlctl.config.validation import check_options
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.backend import Backend


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool of an executor.

    Attributes:
        name: letters, digits, ``_`` and ``-``; empty where it is the only one.
        backfill: whether tasks may overtake one that does not fit there yet.
    """

    backend: Backend
    name: str = ""
    backfill: bool = False


class BackendFactory(Protocol):
    """Makes backends of one kind; a package registers a subclass under the entry point group ``rlctl.executors``.

    It is called as ``Factory(options)``, with the mapping ``executor.options`` of the configuration, and raises
    ``ConfigError`` for options that it does not know or cannot use.

    Attributes:
        Options: the pydantic model of ``executor.options``. Its field ``backfill`` says whether tasks may overtake one
            that does not fit yet.
        options: the options given, as that model.
        actor_options: options of an actor's executor, unless the configuration has others: nothing takes over the tasks
            of a dead actor, and actors of one host do not know of each other's cores.
    """

    Options: ClassVar[type[BaseModel]]
    options: Any
    actor_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = check_options(self.Options, options, "executor.options")

    def check(self, capacity: Capacity) -> None:
        """Find out, before a run folder is made, whether the machine has ``capacity``.

        Raises:
            LaunchError: it has less.
        """

    def backend(self, capacity: Capacity, workdir: Path, pool: str = "", first_node: int = 0) -> Backend:
        """Make a backend; the engine opens it.

        Args:
            capacity: what to use of the machine.
            workdir: working directory of the tasks.
            pool: name of the pool, where there are several; it goes into the names of files.
            first_node: nodes that pools before this one have on the same kind of backend.
        """
        ...

    def pools(self, capacity: Capacity, workdir: Path) -> Sequence[PoolPlan]:
        """The pools of an executor: one, as a rule."""
        return (PoolPlan(self.backend(capacity, workdir), backfill=self.options.backfill),)

    def check_programs(self, specs: Sequence[TaskSpec]) -> list[str]:
        """Check that what the options describe, and what such tasks name, is installed; ``rlctl check`` calls it.

        Returns:
            Lines on what can only be known elsewhere.

        Raises:
            LaunchError: something is missing.
        """
        return []

    def command(self, spec: TaskSpec) -> list[str]:
        """The command of a program with its launcher, but without its wrapper, to be shown to people.

        Raises:
            LaunchError: there is no such launcher or application.
        """
        return [str(spec.executable), *spec.arguments]

    @classmethod
    def portable(cls, options: Mapping[str, Any], resolve: Callable[[str], Path]) -> Mapping[str, Any]:
        """The options with absolute paths.

        Args:
            resolve: from a path as it is written to where it is.
        """
        return options
