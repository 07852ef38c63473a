"""What users tell of evaluations that they have made elsewhere."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, brief

_STATUSES = ("", "done", "failed", "infeasible")
_NUMBER = "evaluation"


@dataclass(frozen=True, slots=True)
class ToldResult:
    """What came of an evaluation.

    Attributes:
        number: of the evaluation.
        results: by name.
        status: empty: it has results; ``failed`` or ``infeasible``: it has none.
        where: begins messages about it, e.g. ``"file.csv:3: "``.
    """

    number: int
    results: Mapping[str, float] = field(default_factory=dict)
    status: str = ""
    where: str = ""

    def check(self, names: Collection[str]) -> None:
        """Raise ConfigError unless there is a result of each of these names, and no other."""
        for name in self.results:
            if name not in names:
                raise ConfigError(f"{self.where}there is no result {name!r}; {did_you_mean(name, names)}")
        missing = [name for name in names if name not in self.results]
        if missing:
            raise ConfigError(f"{self.where}evaluation {self.number}: give {', '.join(missing)} too")


def parse_results(texts: Sequence[str]) -> dict[str, float]:
    """Results from texts such as ``energy=-1.5``; ConfigError if one is no such text."""
    results: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{brief(text)}: write NAME=NUMBER, e.g. energy=-1.5")
        if name in results:
            raise ConfigError(f"{name} is given twice")
        results[name] = _number(name, value)
    return results


def read_told(path: Path, names: Collection[str]) -> list[ToldResult]:
    """The rows of a CSV file with the columns ``evaluation``, results, and ``status`` if some have none.

    Args:
        path: the file.
        names: of results; other columns are not read.

    Raises:
        ConfigError: it cannot be read; the message names file and line.
    """
    told: list[ToldResult] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if _NUMBER not in columns:
                raise ConfigError(f"{path}:1: there is no column {_NUMBER}; {did_you_mean(_NUMBER, columns)}")
            for row in reader:
                where = f"{path}:{reader.line_num}: "
                if None in row or None in row.values():
                    raise ConfigError(f"{where}not as many cells as the first line has")
                told.append(_told(row, names, where))
                if any(told[-1].number == one.number for one in told[:-1]):
                    raise ConfigError(f"{where}evaluation {told[-1].number} is there twice")
    except (OSError, ValueError, csv.Error) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise ConfigError(f"{path}: {why}") from None
    return told


def _told(row: Mapping[str, str], names: Collection[str], where: str) -> ToldResult:
    number, status = row[_NUMBER].strip(), row.get("status", "").strip()
    if not number.isdecimal():
        raise ConfigError(f"{where}{_NUMBER} {brief(number)} is not a number")
    if status not in _STATUSES:
        raise ConfigError(f"{where}status {brief(status)} is not known; {did_you_mean(status, _STATUSES[1:])}")
    status = "" if status == "done" else status
    try:
        results = {name: _number(name, row[name]) for name in names if row.get(name, "").strip()}
    except ConfigError as error:
        raise ConfigError(f"{where}{error.problem}") from None
    return ToldResult(int(number), {} if status else results, status, where)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name}: {brief(text.strip())} is not a finite number")
    return number
