"""Reads past evaluations, from run folders and CSV files, as the rows that a twin is fitted to."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, one_line
from rlctl.plugins.fittable import TwinColumns
from rlctl.steering.evaluation_table import cell_value, read_table
from rlctl.steering.run_folder import JOURNAL, read_run
from rlctl.surrogates.fitted_table import FEWEST_ROWS, TableRows

_RESULT, _FAILED, _OTHERS = ("done",), ("failed", "infeasible"), ("stopped", "running", "queued")
_MACHINE = ("launch", "lost")
"""Kinds of failure that are the machine's and say nothing of the program."""


@dataclass(frozen=True)
class RecordedSource:
    """Evaluations of one run or file.

    Attributes:
        path: of the run folder or CSV file.
        rows: cells by column.
        places: of the rows, for messages.
        sha256: of their content.
    """

    path: Path
    rows: Sequence[Mapping[str, Any]]
    places: Sequence[str]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> RecordedSource:
        """Read a run folder of ``rlctl steer``, or a CSV file such as ``rlctl results --csv`` writes.

        Raises:
            ConfigError: it is neither, or it has no table of evaluations.
            JournalError: the run folder cannot be read.
        """
        if not path.exists():
            raise ConfigError(f"{path}: there is no such run folder or CSV file")
        if path.is_dir():
            table = read_table(read_run(path))
            if table is None:
                raise ConfigError(f"{path}: its campaign has no table of evaluations")
            places = [f"{path}: evaluation {row['evaluation']}" for row in table.rows]
            return cls(path, table.rows, places, _digest(table.csv_text().encode()))
        try:
            content = path.read_bytes()
            lines = content.decode("utf-8-sig").splitlines()
            header, *cells = [(number, row) for number, row in _numbered(lines) if row] or [(1, [])]
        except (OSError, ValueError, csv.Error) as error:
            raise ConfigError(f"{path}: it is no table that can be read: {one_line(str(error))}") from None
        names = [name.strip() for name in header[1]]
        if len(set(names)) < len(names) or not all(names):
            raise ConfigError(f"{path}:{header[0]}: the first line should name each column differently")
        odd = next((number for number, row in cells if len(row) != len(names)), None)
        if odd is not None:
            raise ConfigError(f"{path}:{odd}: this row has another number of cells than the first line")
        rows = [dict(zip(names, map(cell_value, row), strict=True)) for _, row in cells]
        return cls(path, rows, [f"{path}:{number}" for number, _ in cells], _digest(content))

    def to_json(self) -> dict[str, Any]:
        """Where it is from."""
        return {"path": str(self.path.absolute()), "rows": len(self.rows), "sha256": self.sha256}


def _numbered(lines: Sequence[str]) -> list[tuple[int, list[str]]]:
    reader = csv.reader(lines)
    return [(reader.line_num, row) for row in reader]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run."""
    return (path / JOURNAL).exists()


def table_rows(columns: TwinColumns, sources: Sequence[RecordedSource], fewest: int = FEWEST_ROWS) -> TableRows:
    """The evaluations that have ended, as models see them; those that were stopped say nothing certain.

    Args:
        fewest: a result without which the campaign can do is left out where fewer evaluations have it.

    Raises:
        ConfigError: a source lacks a column, or has a cell that cannot be used; it names file and line.
    """
    known = {name for source in sources for row in source.rows for name in row}
    names = [name for name in (*columns.outcomes, *columns.further) if name in known]
    inputs: list[Mapping[str, Any]] = []
    seconds, failed, outcomes = list[float](), list[bool](), {name: list[float]() for name in names}
    for source in sources:
        _require_columns(columns, source)
        for place, row in zip(source.places, source.rows, strict=True):
            try:
                status = str(row.get("status", "done"))
                if status in _OTHERS or row.get("kind") in _MACHINE:
                    continue
                if status not in (*_RESULT, *_FAILED):
                    raise ConfigError(f"status is {status!r}; {did_you_mean(status, (*_RESULT, *_FAILED, *_OTHERS))}")
                values = _inputs(columns, row)
                columns.inputs.read([values], costs=True)
                found = {name: _number(row, name) for name in names} if status in _RESULT else {}
                seconds.append(_seconds(columns, row))
            except ConfigError as error:
                raise ConfigError(f"{place}: {error.problem}") from None
            inputs.append(values)
            failed.append(status in _FAILED)
            for name, of in outcomes.items():
                of.append(found.get(name, math.nan))
    arrays = {name: np.array(of) for name, of in outcomes.items()}
    kept = {name: of for name, of in arrays.items() if name in columns.outcomes or np.isfinite(of).sum() >= fewest}
    return TableRows.of(columns.inputs, inputs, np.array(seconds), np.array(failed, np.bool_), kept)


def _require_columns(columns: TwinColumns, source: RecordedSource) -> None:
    have = list(dict.fromkeys(name for row in source.rows for name in row))
    resources = {"cores", "gpus"}
    needed = [name for name in columns.inputs.names if name not in resources]
    for name in (*needed, *columns.outcomes):
        if name not in have:
            place = source.path if is_run(source.path) else f"{source.path}:1"
            raise ConfigError(f"{place}: there is no column {name!r}; {did_you_mean(name, have)}")
    if not {"duration_s"} & set(have) and not {"started_s", "ended_s"} <= set(have):
        raise ConfigError(f"{source.path}:1: there is no column 'duration_s', nor 'started_s' and 'ended_s'")


def _inputs(columns: TwinColumns, row: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(row)
    for column in columns.inputs.columns:
        value = row.get(column.name)
        if column.values and value not in column.values:  # cells that are numbers of a choice of texts
            texts = {str(one): one for one in column.values}
            text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
            values[column.name] = texts.get(text, value)
    ranks = _count(row, "ranks", 1.0)
    values["cores"], values["gpus"] = ranks * _count(row, "cores", 1.0), ranks * _count(row, "gpus", 0.0)
    return values


def _count(row: Mapping[str, Any], name: str, usual: float) -> float:
    value = row.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name} is {value!r}: it should be a number")
    return float(value)


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}: it should be a number")
    return float(value)


def _seconds(columns: TwinColumns, row: Mapping[str, Any]) -> float:
    """The duration; NaN where it is unknown, or of resources that the configuration does not allow."""
    ended_s = _number(row, "ended_s") - _number(row, "started_s")
    seconds = _number(row, "duration_s") if "duration_s" in row else ended_s
    if seconds < 0.0:
        raise ConfigError(f"its duration is {seconds:g} s")
    own = _inputs(columns, row)
    return seconds if own["cores"] in columns.cores and own["gpus"] in columns.gpus else math.nan
