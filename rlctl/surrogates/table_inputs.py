"""The inputs of a table of evaluations: named columns, and how models read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError, brief, one_line

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One input: a number, or one of several values.

    Attributes:
        name: of the column.
        low, high: of a number, between which models see 0 to 1; values beyond are allowed.
        log: whether equal ratios count as equal distances.
        values: in place of a number: the values that there are.
        ordered: whether their order means something.
        costs_only: whether only the duration depends on it, as on the number of ranks.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    values: tuple[Any, ...] = ()
    ordered: bool = False
    costs_only: bool = False

    @property
    def features(self) -> int:
        """Number of columns that models see."""
        return 1 if self.ordered or not self.values else len(self.values)

    def read(self, value: Any) -> list[float]:
        """What models see of a value.

        Raises:
            ConfigError: it is none of the values, or no number.
        """
        if not self.values:
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not good or (self.log and value <= 0):
                raise ConfigError(f"{self.name} is {brief(value)}: it should be a number{' above 0' * self.log}")
            low, high, at = self.low, self.high, float(value)
            if self.log:
                low, high, at = math.log(low), math.log(high), math.log(at)
            return [(at - low) / (high - low)]
        if value not in self.values:
            known = one_line(", ".join(map(str, self.values)))
            raise ConfigError(f"{self.name} is {brief(value)}, which is none of {known}")
        place = self.values.index(value)
        if self.ordered:
            return [place / max(1, len(self.values) - 1)]
        return [float(i == place) for i in range(len(self.values))]


@dataclass(frozen=True)
class TableInputs:
    """The inputs of a table.

    Attributes:
        columns: in the order in which models see them.
        level: name of the column of values whose outputs have a location and a scale each, such as a stage; empty:
            there is none.
    """

    columns: tuple[InputColumn, ...]
    level: str = ""
    _places: Mapping[str, InputColumn] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {column.name: column for column in self.columns})

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._places)

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self._places[self.level].values) if self.level else 1

    def groups(self, costs: bool) -> NDArray[np.int64]:
        """Number of the length scale of each feature; see ``GaussianProcess``."""
        widths = [column.features for column in self._seen(costs)]
        return np.repeat(np.arange(len(widths)), widths)

    def read(self, rows: Sequence[Mapping[str, Any]], costs: bool) -> Floats:
        """What models see, [rows, features]; ``costs``: with the columns that only the duration depends on.

        Raises:
            ConfigError: a row lacks a column, or its value is impossible.
        """
        seen = self._seen(costs)
        found = [[feature for column in seen for feature in column.read(_cell(row, column.name))] for row in rows]
        return np.array(found, float).reshape(len(rows), -1)

    def level_of(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
        """Number of each row's level, [rows]."""
        if not self.level:
            return np.zeros(len(rows), np.int64)
        values = self._places[self.level].values
        return np.array([values.index(row[self.level]) for row in rows], np.int64)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return {"columns": [asdict(column) for column in self.columns], "level": self.level}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableInputs:
        """The inverse of ``to_json``."""
        columns = [InputColumn(**{**column, "values": tuple(column["values"])}) for column in data["columns"]]
        return cls(tuple(columns), str(data["level"]))

    def _seen(self, costs: bool) -> list[InputColumn]:
        return [column for column in self.columns if costs or not column.costs_only]


def _cell(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise ConfigError(f"there is no {name!r}")
    return row[name]
