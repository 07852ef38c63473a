"""Logs in the Standard Workload Format: a line for each job, 18 numbers, -1 where something is not known.

The format is that of the Parallel Workloads Archive (Chapin et al. 1999, "Benchmarks and Standards for the Evaluation
of Parallel Job Schedulers"). Fields: 1 number, 2 submit, 3 wait, 4 run time, 5 processors, 6 CPU time, 7 memory, 8
requested processors, 9 requested time, 10 requested memory, 11 status, 12 user, 13 group, 14 program, 15 queue, 16
partition, 17 preceding job, 18 think time. Lines that begin with a semicolon are comments.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from rlctl.errors import ConfigError
from rlctl_envs.ensemble.workloads.logged import LoggedJob

FIELDS = 18


def read_swf(path: Path) -> list[LoggedJob]:
    """The jobs of a log, by their time of submission; also of one that is compressed by gzip.

    A job whose run time or number of processors is unknown, or 0, is left out: it did not run. Programs that are
    unknown are told apart by their users.

    Raises:
        ConfigError: the file cannot be read, a line is none of the format, or nothing is left; one line.
    """
    jobs = []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not line.lstrip().startswith(";"):
                    job = _job(line.split(), path, number)
                    jobs += [] if job is None else [job]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    if not jobs:
        raise ConfigError(f"{path}: no job in it has run")
    return sorted(jobs, key=lambda job: job.submit_s)


def _job(fields: list[str], path: Path, number: int) -> LoggedJob | None:
    if len(fields) != FIELDS:
        raise ConfigError(f"{path}, line {number}: {len(fields)} fields, the Standard Workload Format has {FIELDS}")
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: {error}") from None
    submit_s, run_s, asked_s = values[1], values[3], values[8]
    ranks = int(values[4] if values[4] > 0 else values[7])
    if run_s <= 0.0 or ranks <= 0 or submit_s < 0.0:
        return None
    kind = int(values[13] if values[13] >= 0 else max(values[11], 0))
    return LoggedJob(submit_s, run_s, ranks, asked_s if asked_s > 0.0 else None, kind)
