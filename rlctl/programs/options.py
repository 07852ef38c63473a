"""What a user can set about a program, in YAML."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rlctl.programs.placeholders import BRACES, Delimiters
from rlctl.programs.reader_options import ProgramSection, Reader, require_regex

NAME = re.compile(r"[A-Za-z_]\w*")


def _words(value: Any) -> Any:
    """Words of a command that is given as a line, as a shell splits it; no shell runs it."""
    return shlex.split(value) if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    """A choice of one number is a choice."""
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Command = Annotated[list[Annotated[str, BeforeValidator(_word)]], BeforeValidator(_words), Field(min_length=1)]
Commands = Annotated[list[Command], BeforeValidator(_several)]
Files = Annotated[list[str], BeforeValidator(_several)]


def _same_name(value: Any) -> Any:
    return {value: value} if isinstance(value, str) else value


UNDECLARED = ("exit", "signal", "read", "output", "timeout", "memory")
"""Kinds of failure that need no sign: exit codes other than 0, signals, results that cannot be read, limits."""


def _require_inside(name: str) -> None:
    """Raise ValueError unless this is a path in the folder of an evaluation."""
    if name.startswith("/") or ".." in name.split("/") or not name.strip("/."):
        raise ValueError(f"{name!r} is no file in the folder of an evaluation")


class FailureKind(ProgramSection):
    """A way in which the program fails, and what follows.

    The names ``exit``, ``signal``, ``read``, ``output``, ``timeout`` and ``memory`` mean failures that no other kind
    declares: they need neither exit codes nor a pattern.

    Attributes:
        exit_codes: codes that mean it.
        pattern: regular expression that means it where it matches in ``file``, whatever the exit code is.
        file: ``stdout``, ``stderr`` or a file.
        retry: how often the program is run again first, in an empty folder.
        then: ``fail``: the evaluation has failed; ``infeasible``: the point is recorded as one that cannot be
            evaluated, which is no failure; ``stop``: the campaign stops.
    """

    exit_codes: list[int] = Field(default_factory=list)
    pattern: str | None = None
    file: str = "stdout"
    retry: int = Field(default=0, ge=0, le=100)
    then: Literal["fail", "infeasible", "stop"] = "fail"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return value if value is None else require_regex(value)


class ResourceChoices(ProgramSection):
    """What an evaluation may occupy; a list is a choice of the policy's.

    Attributes:
        ranks: MPI ranks.
        cores: cores of each rank.
        gpus: GPUs of each rank; below 1, ranks share one.
        nodes: nodes over which the ranks are spread evenly; null: as few as they fit on.
        memory_mb: MiB of each rank; null: neither limited nor scheduled.
    """

    ranks: Annotated[list[int], BeforeValidator(_listed)] = Field(default_factory=lambda: [1])
    cores: Annotated[list[int], BeforeValidator(_listed)] = Field(default_factory=lambda: [1])
    gpus: Annotated[list[float], BeforeValidator(_listed)] = Field(default_factory=lambda: [0.0])
    nodes: int | None = Field(default=None, ge=1)
    memory_mb: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> ResourceChoices:
        choices: tuple[tuple[str, int, list[Any]], ...]
        choices = (("ranks", 1, self.ranks), ("cores", 1, self.cores), ("gpus", 0, self.gpus))
        for name, least, values in choices:
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ValueError(f"{name}: give different numbers from {least} on, got {values}")
        return self


class ProgressOptions(ProgramSection):
    """A number that the program writes while it runs, for policies that stop runs early.

    Attributes:
        read: how it is read.
        every_s: seconds between two looks.
    """

    read: Reader
    every_s: float = Field(default=1.0, ge=0.05, le=86_400)


class ProgramOptions(ProgramSection):
    """A program: how it is started for an evaluation, and how its results are read.

    Placeholders ``{x}`` or ``{x:.6e}`` stand for parameters and for ``ranks``, ``cores``, ``gpus`` (of each rank),
    ``seed``, ``task`` (number of the evaluation), ``here`` (folder of the YAML file), ``restart_in``, ``restart_out``,
    ``stage`` and the values of the stage. A word of a command that is one placeholder, whose value is a list, becomes
    several words.

    Attributes:
        command: the program and its arguments, a list or a line; no shell reads it. It starts in a folder of its own,
            under the launcher if there are several ranks.
        before: commands that run before it, in the same folder.
        after: commands that run after it, if it did not fail.
        environment: its variables.
        application: environment that it needs, by its name in ``executor.options.applications``.
        templates: files whose placeholders are replaced; a mapping gives them other names in the folder.
        delimiters: that placeholders stand between in templates, for formats that have braces of their own.
        copy: files and folders that are copied into the folder; wildcards are allowed.
        link: likewise, as symbolic links.
        restart: file or folder that the program leaves for an evaluation that continues it, which finds it under this
            name, in place of what else would have it; a mapping gives it another name there.
        keep: folders that are kept after the evaluation: ``all``, ``failed`` or ``none``.
        results: readers by the names of results.
        progress: a number that it writes while it runs.
        failures: kinds of failure by name.
        resources: what it occupies.
        walltime_s: seconds after which it is stopped; null: never.
        output_mb: MiB of standard output and error after which it is stopped.
    """

    command: Command
    before: Commands = Field(default_factory=list)
    after: Commands = Field(default_factory=list)
    environment: dict[str, Annotated[str, BeforeValidator(_word)]] = Field(default_factory=dict)
    application: str | None = None
    templates: dict[str, str] = Field(default_factory=dict)
    delimiters: Delimiters = BRACES
    copy_: Files = Field(default_factory=list, alias="copy")
    link: Files = Field(default_factory=list)
    restart: Annotated[dict[str, str], BeforeValidator(_same_name), Field(max_length=1)] = Field(default_factory=dict)
    keep: Literal["all", "failed", "none"] = "all"
    results: dict[str, Reader] = Field(min_length=1)
    progress: ProgressOptions | None = None
    failures: dict[str, FailureKind] = Field(default_factory=dict)
    resources: ResourceChoices = ResourceChoices()
    walltime_s: float | None = Field(default=None, gt=0)
    output_mb: int = Field(default=256, ge=1)

    @field_validator("templates", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Files keep their names, but for an ending that says that they are templates."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            return {str(file): re.sub(r"\.(template|tmpl|j2)$", "", str(file).rpartition("/")[2]) for file in value}
        return value

    @field_validator("templates")
    @classmethod
    def _inside(cls, value: dict[str, str]) -> dict[str, str]:
        for target in value.values():
            _require_inside(target)
        return value

    @field_validator("restart")
    @classmethod
    def _both_inside(cls, value: dict[str, str]) -> dict[str, str]:
        for name in (*value, *value.values()):
            _require_inside(name)
        return value

    @field_validator("delimiters")
    @classmethod
    def _recognized(cls, value: Delimiters) -> Delimiters:
        if not all(sign and not re.search(r"\w|\s", sign) for sign in value):
            raise ValueError("give two texts without letters, digits, _ and blanks, e.g. ['<<', '>>']")
        return value

    @field_validator("failures")
    @classmethod
    def _recognizable(cls, value: dict[str, FailureKind]) -> dict[str, FailureKind]:
        for name, kind in value.items():
            if name in UNDECLARED:
                if kind.exit_codes or kind.pattern is not None:
                    raise ValueError(f"{name} means failures that no other kind declares: it has no codes and pattern")
                if kind.retry and name in ("timeout", "memory"):
                    raise ValueError(f"{name} cannot be retried: the same limit would stop it again")
            elif name in ("launch", "lost"):
                raise ValueError(f"{name} is a failure of the machine: call it otherwise")
            elif not kind.exit_codes and kind.pattern is None:
                raise ValueError(f"{name}: give exit_codes or a pattern, by which it is recognized")
        return value

    @field_validator("results")
    @classmethod
    def _identifiers(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a result: use letters, digits and _")
        return value
