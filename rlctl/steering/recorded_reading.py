"""Reads past evaluations, from run folders and CSV files, that a twin is fitted to."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import ConfigError, one_line
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.steering.evaluation_table import EvaluationTable, cell_value, read_table
from rlctl.steering.run_folder import JOURNAL, RunFolder, read_run


def read_recorded(path: Path) -> RecordedTable:
    """The evaluations of a run folder of ``rlctl steer``, or of a CSV file such as ``rlctl results --csv`` writes.

    Raises:
        ConfigError: it is neither, or it has no table of evaluations.
        JournalError: the run folder cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no such run folder or CSV file")
    if path.is_dir():
        run = read_run(path)
        table = read_table(run)
        if table is None:
            raise ConfigError(f"{path}: its campaign has no table of evaluations")
        places = [f"{path}: evaluation {row['evaluation']}" for row in table.rows]
        rows = timed_rows(run, table)
        return RecordedTable(path, rows, places, _digest(table.csv_text().encode()), is_run=True)
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
    return RecordedTable(path, rows, [f"{path}:{number}" for number, _ in cells], _digest(content))


def read_recorded_each(paths: Sequence[Path]) -> list[RecordedTable]:
    """The evaluations of several; ConfigError, too, if two of them are the same."""
    tables = [read_recorded(path) for path in paths]
    for number, table in enumerate(tables):
        other = next((one for one in tables[:number] if one.sha256 == table.sha256), None)
        if other is not None:
            same = "is given twice" if other.path == table.path else f"holds the evaluations of {other.path}"
            raise ConfigError(f"{table.path} {same}")
    return tables


def timed_rows(run: RunFolder, table: EvaluationTable) -> list[dict[str, Any]]:
    """The rows of a run, without times of evaluations during which the controller changed.

    The clock stands still while there is none, and the next one learns late what has ended meanwhile.
    """
    changes_s = [record.time_s for record in run.records if record.kind == "epoch"][1:]

    def timed(row: Mapping[str, Any]) -> dict[str, Any]:
        asked_s, ended_s = row.get("queued_s"), row.get("ended_s")  # the start may have become known later
        if asked_s is None or ended_s is None or not any(asked_s < s <= ended_s for s in changes_s):
            return dict(row)
        return {**row, "started_s": None, "ended_s": None}

    return [timed(row) for row in table.rows]


def _numbered(lines: Sequence[str]) -> list[tuple[int, list[str]]]:
    reader = csv.reader(lines)
    return [(reader.line_num, row) for row in reader]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run."""
    return (path / JOURNAL).exists()
