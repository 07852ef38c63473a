"""A job of a log, or of a model of logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

UNKNOWN = -1
"""A whole number that the log lacks, as in the Standard Workload Format."""


@dataclass(frozen=True, slots=True)
class LoggedJob:
    """One job of a log.

    Attributes:
        submit_s: seconds since the log began.
        run_s: how long it ran.
        ranks: processors that it had.
        estimate_s: run time that its user asked for; None: unknown.
        user: number of its user.
        application: number of its program.
        number: its own number in the log.
    """

    submit_s: float
    run_s: float
    ranks: int
    estimate_s: float | None = None
    user: int = UNKNOWN
    application: int = UNKNOWN
    number: int = UNKNOWN

    @property
    def kind(self) -> int:
        """Its program, or its user where that is unknown; jobs of a kind scale alike."""
        return self.application if self.application >= 0 else max(self.user, 0)


def usable(job: LoggedJob) -> bool:
    """Whether it ran, on processors, after the log began.

    >>> usable(LoggedJob(0.0, 10.0, 4)), usable(LoggedJob(0.0, 0.0, 4)), usable(LoggedJob(0.0, math.inf, 4))
    (True, False, False)
    """
    return job.ranks > 0 and 0.0 < job.run_s < math.inf and 0.0 <= job.submit_s < math.inf


def window(jobs: Sequence[LoggedJob], first: int, count: int) -> list[LoggedJob]:
    """``count`` jobs from the one numbered ``first`` on, round the end of the log.

    >>> [job.submit_s for job in window([LoggedJob(5, 1, 1), LoggedJob(7, 1, 1)], 1, 2)]
    [7.0, 9.0]
    """
    found: list[LoggedJob] = []
    offset_s = 0.0
    for i in range(count):
        job = jobs[(first + i) % len(jobs)]
        if found and (first + i) % len(jobs) == 0:  # from here on, a gap as the log's mean one
            span_s = jobs[-1].submit_s - jobs[0].submit_s
            offset_s += span_s + (span_s / (len(jobs) - 1) if len(jobs) > 1 else 1.0)
        found.append(replace(job, submit_s=job.submit_s + offset_s))
    return found
