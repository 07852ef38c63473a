"""A job as logs and models of logs tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class LoggedJob:
    """One job of a log.

    Attributes:
        submit_s: seconds since the log began.
        run_s: how long it ran.
        ranks: processors that it had.
        estimate_s: run time that its user asked for; None: unknown.
        kind: which program it was, as far as is known: jobs of a kind scale alike.
    """

    submit_s: float
    run_s: float
    ranks: int
    estimate_s: float | None = None
    kind: int = 0


def window(jobs: Sequence[LoggedJob], first: int, count: int) -> list[LoggedJob]:
    """``count`` jobs from the one numbered ``first`` on, round the end of the log; the first is submitted at 0.

    >>> [job.submit_s for job in window([LoggedJob(5, 1, 1), LoggedJob(7, 1, 1)], 1, 2)]
    [0.0, 2.0]
    """
    found: list[LoggedJob] = []
    offset_s = 0.0
    for i in range(count):
        job = jobs[(first + i) % len(jobs)]
        if found and (first + i) % len(jobs) == 0:  # from here on, a gap as the log's mean one
            span_s = jobs[-1].submit_s - jobs[0].submit_s
            offset_s += span_s + (span_s / (len(jobs) - 1) if len(jobs) > 1 else 1.0)
        found.append(replace(job, submit_s=job.submit_s + offset_s))
    return [replace(job, submit_s=job.submit_s - found[0].submit_s) for job in found]
