"""Reads logs in the Standard Workload Format: a line for each job, 18 numbers, -1 for what is not known.

The format is that of the Parallel Workloads Archive, version 2.2 (Chapin et al. 1999, "Benchmarks and Standards for the
Evaluation of Parallel Job Schedulers"). Lines that begin with a semicolon are comments. A job without processors
counts those requested; one without these, or without a run time, is left out, and so is one of 0 seconds, which stand
for less than half a one or for a job that never began. Lines of status 2, 3 and 4 are parts of a job that was swapped
or wrote checkpoints; it has a line of its own as a whole, so they are left out.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workloads.logged import UNKNOWN, LoggedJob, usable

NAMES = (
    *("job number", "submit time", "wait time", "run time", "processors", "CPU time", "memory", "requested processors"),
    *("requested time", "requested memory", "status", "user", "group", "program", "queue", "partition"),
    *("preceding job", "think time"),
)
"""The fields of a line."""
PARTS = (2, 3, 4)
"""Status of lines that are parts of a job."""
NEGATIVE_RUN_S = 10.0
"""What RLScheduler takes a run time below 0 for."""
_WHOLE = frozenset((0, 4, 7, 10, 11, 12, 13, 14, 16))


def read_swf(path: Path, as_requested: bool = False) -> list[LoggedJob]:
    """The jobs of a log, maybe compressed by gzip, by their time of submission; ConfigError if it cannot be used.

    Args:
        as_requested: read it as RLScheduler does (Zhang et al. 2020): jobs in the order of their numbers, parts of jobs
            too; a run time below 0 is 10 s; a job has as many processors as it requested or had, the larger number; a
            requested time that is unknown is the run time.
    """
    jobs: list[tuple[float, LoggedJob]] = []
    try:
        # Names in the comments of old logs are not all UTF-8; numbers are ASCII.
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text and not text.startswith(";"):
                    values = _numbers(text.split(), f"{path}, line {number}")
                    job = _as_requested(values) if as_requested else _job(values)
                    if usable(job) and (as_requested or values[10] not in PARTS):
                        jobs.append((values[0] if as_requested else job.submit_s, job))
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    if not jobs:
        raise ConfigError(f"{path}: no job in it has run")
    return [job for _, job in sorted(jobs, key=itemgetter(0))]


def _numbers(fields: Sequence[str], where: str) -> list[float]:
    if len(fields) != len(NAMES):
        raise ConfigError(f"{where}: {len(fields)} fields, the Standard Workload Format has {len(NAMES)}")
    values = []
    for i, field in enumerate(fields):
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{where}: field {i + 1} ({NAMES[i]}) is {field[:40]!r}, which is no number")
        if i in _WHOLE and not value.is_integer():
            raise ConfigError(f"{where}: field {i + 1} ({NAMES[i]}) is {field[:40]!r}, which is no whole number")
        values.append(value)
    return values


def _job(values: Sequence[float]) -> LoggedJob:
    return LoggedJob(
        submit_s=values[1],
        run_s=values[3],
        ranks=int(values[4]) if values[4] > 0 else int(values[7]),
        estimate_s=values[8] if values[8] > 0.0 else None,
        user=max(int(values[11]), UNKNOWN),
        application=max(int(values[13]), UNKNOWN),
    )


def _as_requested(values: Sequence[float]) -> LoggedJob:
    run_s = values[3] if values[3] >= 0.0 else NEGATIVE_RUN_S
    estimate_s = values[8] if values[8] > 0.0 else run_s
    return LoggedJob(values[1], run_s, int(max(values[4], values[7])), estimate_s, number=int(values[0]))
