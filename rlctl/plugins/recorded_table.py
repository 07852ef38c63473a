"""Past evaluations as a table, whose rows twins are fitted to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError

DONE = "done"
_FAILED, _OTHERS = ("failed", "infeasible"), ("stopped", "running", "queued", "known")


@dataclass(frozen=True)
class RecordedTable:
    """Evaluations of one run or file.

    Attributes:
        path: of the run folder or CSV file.
        rows: cells by column.
        places: of the rows, for messages.
        sha256: of their content.
        is_run: whether it is a run folder.
    """

    path: Path
    rows: Sequence[Mapping[str, Any]]
    places: Sequence[str]
    sha256: str
    is_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """Where it is from."""
        return {"path": str(self.path.absolute()), "rows": len(self.rows), "sha256": self.sha256}

    def require(self, names: Sequence[str]) -> None:
        """Refuse a table without these columns, or without durations.

        Raises:
            ConfigError: a column is missing.
        """
        have = list(dict.fromkeys(name for row in self.rows for name in row))
        place = self.path if self.is_run else f"{self.path}:1"
        for name in names:
            if name not in have:
                raise ConfigError(f"{place}: there is no column {name!r}; {did_you_mean(name, have)}")
        if "duration_s" not in have and not {"started_s", "ended_s"} <= set(have):
            raise ConfigError(f"{place}: there is no column 'duration_s', nor 'started_s' and 'ended_s'")


def ended_status(row: Mapping[str, Any]) -> str | None:
    """``done``, ``failed`` or ``infeasible``; None: it has not ended by itself, or was made elsewhere.

    Raises:
        ConfigError: there is no such status.
    """
    status = str(row.get("status", DONE))
    if status not in (DONE, *_FAILED, *_OTHERS):
        raise ConfigError(f"status is {status!r}; {did_you_mean(status, (DONE, *_FAILED, *_OTHERS))}")
    elsewhere = "evaluation" in row and row.get("ranks", 1) is None  # a point that a run began with
    return None if elsewhere or status in _OTHERS else status


def number_of(row: Mapping[str, Any], name: str) -> float:
    """The number in a column; NaN: the cell is empty."""
    value = row.get(name)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}: it should be a number")
    return float(value)


def cores_and_gpus(row: Mapping[str, Any]) -> tuple[float, float]:
    """Of all ranks together."""
    ranks = _count(row, "ranks", 1.0)
    return ranks * _count(row, "cores", 1.0), ranks * _count(row, "gpus", 0.0)


def seconds_of(row: Mapping[str, Any]) -> float:
    """How long an evaluation took; NaN: unknown."""
    if "duration_s" in row:
        seconds = number_of(row, "duration_s")
    else:
        seconds = number_of(row, "ended_s") - number_of(row, "started_s")
    if seconds < 0.0:
        raise ConfigError(f"its duration is {seconds:g} s")
    return seconds


def _count(row: Mapping[str, Any], name: str, usual: float) -> float:
    value = row.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name} is {value!r}: it should be a number")
    return float(value)
