"""Scores schedules of rigid jobs that another scheduler has made, once it is sure that they are possible."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workloads.logged import LoggedJob

COLUMNS = ["window", "job", "start"]


def read_schedule(path: Path) -> dict[int, dict[int, float]]:
    """Start of each job, by window and number of the job, from a CSV file with the columns ``window,job,start``.

    Windows count from 0, jobs have their numbers of the log, and starts are seconds on the clock of the log. Raises
    ConfigError, with the line, for what is no such file.
    """
    found: dict[int, dict[int, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if (header := next(rows, [])) != COLUMNS:
                raise ConfigError(f"{path}, line 1: should be {','.join(COLUMNS)}, got {','.join(header)[:60]!r}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                try:
                    window, job, start_s = int(row[0]), int(row[1]), float(row[2])
                except (ValueError, IndexError):
                    raise ConfigError(f"{where}: should be two whole numbers and seconds, got {row}") from None
                if job in found.setdefault(window, {}):
                    raise ConfigError(f"{where}: job {job} of window {window} has a start already")
                found[window][job] = start_s
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return found


def bounded_slowdown(
    jobs: Sequence[LoggedJob], starts_s: Mapping[int, float], processors: int, bound_s: float = 10.0
) -> float:
    """Mean over jobs of ``max(1, (wait + run) / max(run, bound_s))``.

    Args:
        jobs: of a window, on a machine that is empty at first.
        starts_s: start of each job, by its number.
        processors: of the machine.

    Raises:
        ConfigError: a job has no start or starts before its submission, there is no such job, or at some time jobs have
            more processors than there are.

    >>> jobs = [LoggedJob(0.0, 20.0, 3, number=1), LoggedJob(5.0, 10.0, 2, number=2)]
    >>> bounded_slowdown(jobs, {1: 0.0, 2: 20.0}, processors=4)
    1.75
    """
    own = {job.number for job in jobs}
    if strange := next((number for number in starts_s if number not in own), None):
        raise ConfigError(f"job {strange} has a start, and is not one of the {len(jobs)} jobs")
    changes: list[tuple[float, bool, LoggedJob]] = []
    total = 0.0
    for job in jobs:
        start_s = starts_s.get(job.number)
        if start_s is None:
            raise ConfigError(f"job {job.number} has no start")
        if not job.submit_s <= start_s < math.inf:
            raise ConfigError(f"job {job.number} starts at {start_s:g} s, and is submitted at {job.submit_s:g} s")
        changes += [(start_s, True, job), (start_s + job.run_s, False, job)]
        total += max(1.0, (start_s - job.submit_s + job.run_s) / max(job.run_s, bound_s))
    held = 0
    for time_s, starts, job in sorted(changes, key=lambda change: change[:2]):  # at one instant, ends come first
        held += job.ranks if starts else -job.ranks
        if held > processors:
            raise ConfigError(f"at {time_s:g} s, with job {job.number}, {held} processors are in use of {processors}")
    return total / len(jobs)
