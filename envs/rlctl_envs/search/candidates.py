"""Candidates of a search: a table whose rows are the points that can be evaluated."""

from __future__ import annotations

import csv
import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import Field

from rlctl.config.expressions import Expression
from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError
from rlctl_envs.search.parameters import Floats, SearchSection, Value

MOST_CANDIDATES = 1_000_000


class CandidatesOptions(SearchSection):
    """A table of candidates, in place of parameters.

    Attributes:
        file: CSV, or Parquet if ``pyarrow`` is installed; each row is a candidate, each column a placeholder.
        features: columns with numbers that models read; empty: all columns of numbers but that of the name.
        name: column that names a candidate; null: starting points are named by all columns.
    """

    file: str
    features: list[str] = Field(default_factory=list)
    name: str | None = None


class CandidateTable:
    """A search space whose points are the rows of a table; it has what ``SearchSpace`` has.

    Points are vectors of one number, the place of the row in [0, 1].

    Args:
        options: as given.
        folder: where the path of the file begins.
        constraints: expressions over columns; rows that do not fulfil them are left out.

    Raises:
        ConfigError: the file or a column cannot be used; its key is relative to the options of the campaign.
    """

    def __init__(self, options: CandidatesOptions, folder: Path, constraints: Sequence[str] = ()) -> None:
        key = ("candidates", "file")
        columns = _read(folder / options.file, options.file)
        if not columns:
            raise ConfigError(f"{options.file}: there are no columns", key)
        for place, names in (
            ("name", [options.name] if options.name is not None else []),
            ("features", options.features),
        ):
            for name in names:
                if name not in columns:
                    raise ConfigError(
                        f"{options.file} has no column {name!r}; {did_you_mean(name, columns)}", ("candidates", place)
                    )
        columns = {name: _numbers(cells) for name, cells in columns.items()}
        for text in constraints:
            try:
                kept = np.flatnonzero(Expression(text, columns)({n: np.array(c) for n, c in columns.items()}))
            except ConfigError as error:
                raise ConfigError(error.problem, ("constraints",)) from None
            columns = {name: [cells[i] for i in kept] for name, cells in columns.items()}
        count = len(next(iter(columns.values())))
        if not 2 <= count <= MOST_CANDIDATES:
            raise ConfigError(f"{options.file}: {count:,} candidates, there should be 2 to {MOST_CANDIDATES:,}", key)
        self.names = list(columns)
        self.name = options.name
        self.finite = float(count)
        self._columns = columns
        features = options.features or [n for n, c in columns.items() if n != options.name and _all_numbers(c)]
        self._features = self._scaled(options.file, features)
        self.extremes = {name: (float(min(columns[name])), float(max(columns[name]))) for name in features}
        self.groups = np.arange(len(features))
        self._rows = self._named_rows(options.file)
        self._orders: dict[int, NDArray[np.int64]] = {}

    @property
    def dimension(self) -> int:
        """Number of features, for the size of a first design."""
        return len(self.groups)

    def values(self, point: Floats) -> dict[str, Value]:
        """The row at a point."""
        row = int(self._row(np.asarray(point)[None])[0])
        return {name: cells[row] for name, cells in self._columns.items()}

    def point(self, values: Mapping[str, Any]) -> Floats:
        """The point of a row, which is given by its name or by all its cells.

        Raises:
            ConfigError: there is no such row.
        """
        unknown = next((name for name in values if name not in self._columns), None)
        if unknown is not None:
            raise ConfigError(f"there is no column {unknown!r}; {did_you_mean(unknown, self.names)}")
        names = self.names if self.name is None else [self.name]
        missing = next((name for name in names if name not in values), None)
        if missing is not None:
            raise ConfigError(f"give {'all columns' if self.name is None else 'the name'} of a candidate: {missing}")
        row = self._rows.get(tuple(values[name] for name in names))
        if row is None or any(self._columns[name][row] != value for name, value in values.items()):
            raise ConfigError(f"no candidate has {', '.join(f'{n} {v}' for n, v in values.items())}")
        return np.asarray(self._points(np.array([row]))[0])

    def allowed(self, values: Mapping[str, Any]) -> bool:
        """All rows are allowed."""
        return True

    def features(self, points: Floats) -> Floats:
        """What models read, [points, features], each from 0 to 1."""
        return np.asarray(self._features[self._row(points)])

    def identities(self, points: Floats) -> list[tuple[int, ...]]:
        """Numbers of the rows."""
        return [(row,) for row in self._row(points).tolist()]

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Random rows, different ones as far as there are enough."""
        total = int(self.finite)
        return self._points(rng.choice(total, min(count, total), replace=False))

    def spread(self, seed: int, index: int) -> Floats:
        """Row ``index`` of an order that follows a Sobol sequence over the features."""
        if seed not in self._orders:
            self._orders[seed] = self._spread_order(seed)
        order = self._orders[seed]
        return np.asarray(self._points(order[[index % len(order)]])[0])

    def latin_hypercube(self, seed: int, index: int, size: int) -> Floats:
        """The same as ``spread``: rows have no rows and columns of a hypercube."""
        return self.spread(seed, index)

    def near(self, point: Floats, width: float, rng: np.random.Generator, count: int) -> Floats:
        """The rows nearest to one; ``width`` and chance play no part, since all of these are nearest."""
        own = self._features[self._row(np.asarray(point)[None])[0]]
        distance = ((self._features - own) ** 2).sum(axis=1)
        nearest = min(count + 1, len(distance))
        return self._points(np.sort(np.argpartition(distance, nearest - 1)[:nearest]))

    def all_points(self) -> Floats:
        """Every row."""
        return self._points(np.arange(int(self.finite)))

    def _row(self, points: Floats) -> NDArray[np.int64]:
        return np.minimum((np.asarray(points)[:, 0] * self.finite).astype(np.int64), int(self.finite) - 1)

    def _points(self, rows: NDArray[np.int64]) -> Floats:
        return np.asarray((rows[:, None] + 0.5) / self.finite)

    def _spread_order(self, seed: int) -> NDArray[np.int64]:
        total, most = int(self.finite), min(int(self.finite), 256)
        rng = np.random.default_rng([seed, 1])
        left = np.ones(total, np.bool_)
        order: list[int] = []
        sobol = scipy.stats.qmc.Sobol(max(1, self.dimension), rng=rng)
        for target in sobol.random(1 << (most - 1).bit_length())[:most]:
            distance = ((self._features - target[: self.dimension]) ** 2).sum(axis=1)
            order.append(int(np.argmin(np.where(left, distance, math.inf))))
            left[order[-1]] = False
        return np.array([*order, *rng.permutation(np.flatnonzero(left))], np.int64)

    def _scaled(self, file: str, features: Sequence[str]) -> Floats:
        """Features from 0 to 1."""
        found = []
        for name in features:
            if not _all_numbers(self._columns[name]):
                raise ConfigError(
                    f"{file}: column {name!r} has cells that are no finite numbers", ("candidates", "features")
                )
            cells = np.array(self._columns[name], np.float64)
            low, high = cells.min(), cells.max()
            found.append((cells - low) / (high - low) if high > low else np.zeros(len(cells)))
        if not found:
            raise ConfigError(f"{file} has no column of numbers: models need one", ("candidates", "features"))
        return np.stack(found, axis=1)

    def _named_rows(self, file: str) -> dict[tuple[Any, ...], int]:
        names = self.names if self.name is None else [self.name]
        rows: dict[tuple[Any, ...], int] = {}
        for row, cells in enumerate(zip(*(self._columns[name] for name in names), strict=True)):
            if cells in rows and self.name is not None:
                raise ConfigError(f"{file}: two candidates have the name {cells[0]!r}", ("candidates", "name"))
            rows.setdefault(cells, row)
        return rows


def _read(path: Path, shown: str) -> dict[str, list[Any]]:
    """Columns of a file, as its cells are given."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'rlctl[parquet]'", ("candidates", "file")) from None
    except (OSError, ValueError, csv.Error) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise ConfigError(f"{shown}: {why}", ("candidates", "file")) from None
    if not rows:
        raise ConfigError(f"{shown}: it is empty", ("candidates", "file"))
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names) or "" in names:
        raise ConfigError(f"{shown}: its first line should name each column differently", ("candidates", "file"))
    odd = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if odd is not None:
        raise ConfigError(
            f"{shown}: row {odd} has {len(rows[odd])} cells, the first one {len(names)}", ("candidates", "file")
        )
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _numbers(cells: list[Any]) -> list[Value]:
    """Cells as whole numbers, or numbers, if all are; else as text."""
    for kind in (int, float):
        try:
            numbers = [kind(cell) for cell in cells]
        except (TypeError, ValueError):
            continue
        if kind is float or all(
            isinstance(cell, str) or number == cell for number, cell in zip(numbers, cells, strict=True)
        ):
            return list(numbers)
    return ["" if cell is None else str(cell) for cell in cells]


def _all_numbers(cells: Sequence[Any]) -> bool:
    return all(isinstance(cell, int | float) and math.isfinite(cell) for cell in cells)
