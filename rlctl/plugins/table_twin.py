"""Twins of evaluations that are independent of each other: which columns they rest on, and how they are fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlctl.core.errors import ConfigError
from rlctl.plugins.fittable import TwinFit
from rlctl.plugins.recorded_table import DONE, RecordedTable, cores_and_gpus, ended_status, number_of, seconds_of
from rlctl.surrogates.fitted_table import FEWEST_ROWS, FittedTable, TableRows
from rlctl.surrogates.held_out import held_out
from rlctl.surrogates.table_inputs import TableInputs

MACHINE = ("launch", "lost")
"""Kinds of failure that are the machine's and say nothing of the program."""


@dataclass(frozen=True, slots=True)
class TwinColumns:
    """Columns of the table of evaluations that a twin is fitted to.

    Attributes:
        inputs: parameters, and where there is a choice, ``stage``, ``cores`` and ``gpus`` (of all ranks together).
        outcomes: results that the campaign cannot do without.
        further: results that are learned where the table has them.
        cores, gpus: of all ranks together, that an evaluation may have.
    """

    inputs: TableInputs
    outcomes: tuple[str, ...]
    further: tuple[str, ...] = ()
    cores: tuple[float, ...] = (1.0,)
    gpus: tuple[float, ...] = (0.0,)


def fit_table(columns: TwinColumns, sources: Sequence[RecordedTable], seed: int) -> TwinFit:
    """Models of recorded evaluations, with their held-out error.

    Raises:
        ConfigError: the sources cannot be used, or have too few evaluations.
    """
    rows = table_rows(columns, sources)
    table = FittedTable.fit(columns.inputs, rows, seed)
    return TwinFit(table, len(rows), int(rows.failed.sum()), held_out(columns.inputs, rows, seed))


def table_rows(columns: TwinColumns, sources: Sequence[RecordedTable], fewest: int = FEWEST_ROWS) -> TableRows:
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
                status = ended_status(row)
                if status is None or row.get("kind") in MACHINE:
                    continue
                values = columns_of(columns, row)
                columns.inputs.read([values], costs=True)
                found = {name: number_of(row, name) for name in names} if status == DONE else {}
                seconds.append(_seconds(columns, row))
            except ConfigError as error:
                raise ConfigError(f"{place}: {error.problem}") from None
            inputs.append(values)
            failed.append(status != DONE)
            for name, of in outcomes.items():
                of.append(found.get(name, math.nan))
    arrays = {name: np.array(of) for name, of in outcomes.items()}
    kept = {name: of for name, of in arrays.items() if name in columns.outcomes or np.isfinite(of).sum() >= fewest}
    return TableRows.of(columns.inputs, inputs, np.array(seconds), np.array(failed, np.bool_), kept)


def _require_columns(columns: TwinColumns, source: RecordedTable) -> None:
    source.require([name for name in columns.inputs.names if name not in ("cores", "gpus")])
    source.require(columns.outcomes)


def columns_of(columns: TwinColumns, row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row, with ``cores`` and ``gpus`` of all ranks together, and choices as they are meant."""
    values = dict(row)
    for column in columns.inputs.columns:
        value = row.get(column.name)
        if column.values and value not in column.values:  # cells that are numbers of a choice of texts
            texts = {str(one): one for one in column.values}
            text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
            values[column.name] = texts.get(text, value)
    values["cores"], values["gpus"] = cores_and_gpus(row)
    return values


def _seconds(columns: TwinColumns, row: Mapping[str, Any]) -> float:
    """The duration; NaN where it is unknown, or of resources that the configuration does not allow."""
    seconds, (cores, gpus) = seconds_of(row), cores_and_gpus(row)
    return seconds if cores in columns.cores and gpus in columns.gpus else math.nan
