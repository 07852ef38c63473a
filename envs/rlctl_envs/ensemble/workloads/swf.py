"""Logs in the Standard Workload Format: a line for each job, 18 numbers, -1 where something is not known.

The format is that of the Parallel Workloads Archive, version 2.2 (Chapin et al. 1999, "Benchmarks and Standards for the
Evaluation of Parallel Job Schedulers"). Lines that begin with a semicolon are comments; of these, ``; Key: value`` is
kept.

What is not known becomes:

* processors: those requested; likewise the other way round. Neither: the job is left out.
* run time: the job is left out. So are 0 seconds, which stand for less than half a one or for a job that never began.
* memory per processor, which logs give in kilobytes: what was requested, else None.
* requested time and preceding job: None. Think time: 0. Status, user, group, program, queue, number: -1.

Lines of status 2, 3 and 4 tell of parts of a job that was swapped or wrote checkpoints. It has a line of its own as a
whole, so they are left out.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
"""Status of lines that tell of a part of a job."""
KB_PER_MB = 1024.0


@dataclass(frozen=True, slots=True)
class SwfLog:
    """A log.

    Attributes:
        header: what its comments say, by key; a key that stands there several times has as many lines.
        jobs: by their time of submission.
        dropped: lines that were left out, since no run time or number of processors is known.
        parts: lines that were left out, since they tell of a part of a job.
    """

    header: Mapping[str, str]
    jobs: tuple[LoggedJob, ...]
    dropped: int = 0
    parts: int = 0


def read_swf(path: Path) -> SwfLog:
    """A log; also one that is compressed by gzip.

    Raises:
        ConfigError: the file cannot be read, a line is none of the format, or nothing is left; one line.
    """
    header: dict[str, str] = {}
    jobs: list[LoggedJob] = []
    lines = parts = 0
    try:
        # Names in the comments of old logs are not all UTF-8; numbers are ASCII.
        with (gzip.open if _zipped(path) else open)(path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text.startswith(";"):
                    _comment(text[1:], header)
                elif text:
                    lines += 1
                    values = _numbers(text.split(), f"{path}, line {number}")
                    if values[10] in PARTS:
                        parts += 1
                    else:
                        job = _job(values)
                        jobs += [job] if usable(job) else []
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    if not jobs:
        raise ConfigError(f"{path}: no job in it has run")
    return SwfLog(header, tuple(sorted(jobs, key=lambda job: job.submit_s)), lines - parts - len(jobs), parts)


def write_swf(path: Path, log: SwfLog) -> None:
    """Write a log, compressed if the name ends with ``.gz``; ``read_swf`` reads it again as it was.

    Raises:
        ConfigError: the file cannot be written.
    """
    lines = [f"; {key}: {part}" for key, value in log.header.items() for part in value.split("\n")]
    lines += [" ".join(_fields(job)) for job in log.jobs]
    text = "".join(f"{line}\n" for line in lines).encode()
    try:
        # Without name and time in it, the same log is the same file.
        path.write_bytes(gzip.compress(text, mtime=0) if _zipped(path) else text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error})") from None


def _zipped(path: Path) -> bool:
    return path.suffix == ".gz"


def _comment(text: str, header: dict[str, str]) -> None:
    key, colon, value = text.partition(":")
    key, value = key.strip(), value.strip()
    if colon and key.isidentifier():  # else a sentence
        header[key] = f"{header[key]}\n{value}" if key in header else value


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


_WHOLE = frozenset((0, 4, 7, 10, 11, 12, 13, 14, 16))


def _job(values: Sequence[float]) -> LoggedJob:
    ranks, requested = int(values[4]), int(values[7])
    memory_kb = _known((values[6], values[9]))
    status, user, group, application, queue = (max(int(value), UNKNOWN) for value in values[10:15])
    return LoggedJob(
        submit_s=values[1],
        run_s=values[3],
        ranks=ranks if ranks > 0 else requested,
        requested_ranks=requested if requested > 0 else max(ranks, 0),
        estimate_s=_known((values[8],)),
        memory_mb=None if memory_kb is None else memory_kb / KB_PER_MB,
        status=status,
        user=user,
        group=group,
        application=application,
        queue=queue,
        number=int(values[0]),
        after=int(values[16]) if values[16] > 0 else None,
        think_s=max(values[17], 0.0),
    )


def _known(values: Iterable[float]) -> float | None:
    return next((value for value in values if value > 0.0), None)


def _fields(job: LoggedJob) -> list[str]:
    memory_kb = UNKNOWN if job.memory_mb is None else job.memory_mb * KB_PER_MB
    estimate_s = UNKNOWN if job.estimate_s is None else job.estimate_s
    after = UNKNOWN if job.after is None else job.after
    values = [job.number, job.submit_s, UNKNOWN, job.run_s, job.ranks, UNKNOWN, memory_kb, job.requested_ranks]
    values += [estimate_s, UNKNOWN, job.status, job.user, job.group, job.application, job.queue, UNKNOWN]
    # ``repr`` of a float is read back as the same one.
    return [repr(int(value)) if float(value).is_integer() else repr(value) for value in (*values, after, job.think_s)]
