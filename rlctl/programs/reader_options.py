"""What a user can set about the results of a program: how each is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

Take = Literal["first", "last", "min", "max", "mean"]


class ProgramSection(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def require_regex(value: str) -> str:
    """The same, if it is a regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


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

    @property
    def library(self) -> str:
        """That reads it, unless it is NumPy."""
        return "h5py" if self.hdf5 is not None else "netCDF4" if self.netcdf is not None else ""


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
    if isinstance(value, BaseModel):
        return type(value).__name__
    given = value if isinstance(value, Mapping) else {}
    named = [kind for kind in _READERS if given.get(kind) is not None]
    return _READERS[named[0]].__name__ if len(named) == 1 else ""


Reader = Annotated[
    Annotated[JsonReader, Tag("JsonReader")]
    | Annotated[LabelledReader, Tag("LabelledReader")]
    | Annotated[RegexReader, Tag("RegexReader")]
    | Annotated[TableReader, Tag("TableReader")]
    | Annotated[ArrayReader, Tag("ArrayReader")]
    | Annotated[FunctionReader, Tag("FunctionReader")]
    | Annotated[ExitCodeReader, Tag("ExitCodeReader")],
    Discriminator(
        _kind,
        custom_error_type="reader_kind",
        custom_error_message=f"give one key of {', '.join(_READERS)}",
    ),
]
