"""What a user can set about a program, in YAML."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from rlctl.programs.placeholders import BRACES, Delimiters

NAME = re.compile(r"[A-Za-z_]\w*")


class ProgramSection(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _words(value: Any) -> Any:
    """Words of a command that is given as a line, as a shell splits it; no shell runs it."""
    return shlex.split(value) if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def require_regex(value: str) -> str:
    """The same, if it is a regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


Command = Annotated[list[Annotated[str, BeforeValidator(_word)]], BeforeValidator(_words), Field(min_length=1)]
Files = Annotated[list[str], BeforeValidator(_several)]
Take = Literal["first", "last", "min", "max", "mean"]


class JsonReader(ProgramSection):
    """A number in a JSON file.

    Attributes:
        json: the file.
        path: keys and indices on the way to it, joined by points; null: the name of the result.
        take: of a list of numbers.
    """

    json_: str = Field(alias="json")
    path: str | None = None
    take: Take = "last"


class LabelledReader(ProgramSection):
    """A line with a number and a label, as in a results file of Dakota.

    Attributes:
        labelled: the file.
        label: null: the name of the result.
        take: if the label occurs several times.
    """

    labelled: str
    label: str | None = None
    take: Take = "last"


class RegexReader(ProgramSection):
    """A regular expression whose first group, or whole match, is a number.

    Attributes:
        regex: as Python has them; ``^`` and ``$`` match at lines.
        file: ``stdout``, ``stderr`` or a file.
        take: of all matches.
    """

    regex: str
    file: str = "stdout"
    take: Take = "last"

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return require_regex(value)


class TableReader(ProgramSection):
    """A cell or column of a table, separated by commas, semicolons, tabulators or blanks.

    Attributes:
        table: the file, or ``stdout``.
        column: name or number, from 0 on; null: the name of the result.
        row: number of the row, from 0 on, negative ones from the end; null: all, of which ``take`` takes.
        take: of the column.
    """

    table: str
    column: str | int | None = None
    row: int | None = None
    take: Take = "last"


class ArrayReader(ProgramSection):
    """A number of an array in a file.

    Attributes:
        npz, hdf5, netcdf: the file; one of the three. HDF5 needs ``h5py``, NetCDF ``netCDF4``.
        variable: name of the array; null: the name of the result.
        index: of the number, or the list of its indices; null: all, of which ``take`` takes.
        take: of the array.
    """

    npz: str | None = None
    hdf5: str | None = None
    netcdf: str | None = None
    variable: str | None = None
    index: int | list[int] | None = None
    take: Take = "last"


class FunctionReader(ProgramSection):
    """A function of the user's that is called with the folder of the evaluation, a ``pathlib.Path``.

    Attributes:
        function: ``module:name``; modules beside the YAML file are found.
    """

    function: str = Field(pattern=r"^[\w.]+:\w+$")


class ExitCodeReader(ProgramSection):
    """The exit code of the program, which then is no failure.

    Attributes:
        exit_code: true.
    """

    exit_code: Literal[True]


_READERS = {
    "json": JsonReader,
    "labelled": LabelledReader,
    "regex": RegexReader,
    "table": TableReader,
    "npz": ArrayReader,
    "hdf5": ArrayReader,
    "netcdf": ArrayReader,
    "function": FunctionReader,
    "exit_code": ExitCodeReader,
}


def _kind(value: Any) -> str:
    keys = set(value) if isinstance(value, Mapping) else value.model_fields_set if isinstance(value, BaseModel) else ()
    named = [kind for kind in _READERS if kind in keys or f"{kind}_" in keys]
    if len(named) != 1:
        raise ValueError(f"give one of {', '.join(_READERS)}")
    return _READERS[named[0]].__name__


Reader = Annotated[
    Annotated[JsonReader, Tag("JsonReader")]
    | Annotated[LabelledReader, Tag("LabelledReader")]
    | Annotated[RegexReader, Tag("RegexReader")]
    | Annotated[TableReader, Tag("TableReader")]
    | Annotated[ArrayReader, Tag("ArrayReader")]
    | Annotated[FunctionReader, Tag("FunctionReader")]
    | Annotated[ExitCodeReader, Tag("ExitCodeReader")],
    Discriminator(_kind),
]


UNDECLARED = ("exit", "signal", "read", "output", "timeout", "memory")
"""Kinds of failure that need no sign: exit codes other than 0, signals, results that cannot be read, limits."""


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

    ranks: Annotated[list[int], BeforeValidator(lambda v: [v] if isinstance(v, int) else v)] = [1]
    cores: Annotated[list[int], BeforeValidator(lambda v: [v] if isinstance(v, int) else v)] = [1]
    gpus: Annotated[list[float], BeforeValidator(lambda v: [v] if isinstance(v, int | float) else v)] = [0.0]
    nodes: int | None = Field(default=None, ge=1)
    memory_mb: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> ResourceChoices:
        for name, least in (("ranks", 1), ("cores", 1), ("gpus", 0)):
            values = getattr(self, name)
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
    ``seed``, ``task`` (number of the evaluation), ``folder`` (of the evaluation), ``here`` (of the YAML file),
    ``restart_in``, ``restart_out``, ``stage`` and the values of the stage.

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
        keep: folders that are kept after the evaluation: ``all``, ``failed`` or ``none``.
        results: readers by the names of results.
        progress: a number that it writes while it runs.
        failures: kinds of failure by name.
        resources: what it occupies.
        walltime_s: seconds after which it is stopped; null: never.
        output_mb: MiB of standard output and error after which it is stopped.
    """

    command: Command
    before: list[Command] = Field(default_factory=list)
    after: list[Command] = Field(default_factory=list)
    environment: dict[str, Annotated[str, BeforeValidator(_word)]] = Field(default_factory=dict)
    application: str | None = None
    templates: dict[str, str] = Field(default_factory=dict)
    delimiters: Delimiters = BRACES
    copy_: Files = Field(default_factory=list, alias="copy")
    link: Files = Field(default_factory=list)
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

    @field_validator("failures")
    @classmethod
    def _recognizable(cls, value: dict[str, FailureKind]) -> dict[str, FailureKind]:
        for name, kind in value.items():
            if name in UNDECLARED:
                if kind.exit_codes or kind.pattern is not None:
                    raise ValueError(f"{name} means failures that no other kind declares: it has no codes and pattern")
                if kind.retry and name in ("timeout", "memory"):
                    raise ValueError(f"{name} cannot be retried: the same limit would stop it again")
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
