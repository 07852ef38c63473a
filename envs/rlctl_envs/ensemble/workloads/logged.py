"""A job as logs and models of logs tell of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

UNKNOWN = -1
"""Of whole numbers that a log does not tell, as in the Standard Workload Format."""


@dataclass(frozen=True, slots=True)
class LoggedJob:
    """One job of a log.

    Attributes:
        submit_s: seconds since the log began.
        run_s: how long it ran.
        ranks: processors that it had.
        requested_ranks: processors that its user asked for; where nobody knows, as many as it had.
        estimate_s: run time that its user asked for; None: unknown.
        memory_mb: of each rank; None: unknown.
        status: 0 failed, 1 completed, 5 canceled.
        user: number of its user.
        group: likewise.
        application: number of its program.
        queue: number of its queue; 0 is the interactive one, by convention.
        number: the one that the log gives it.
        after: number of the job that it came after; None: of none.
        think_s: seconds from the end of that job to its submission.
    """

    submit_s: float
    run_s: float
    ranks: int
    requested_ranks: int = UNKNOWN
    estimate_s: float | None = None
    memory_mb: float | None = None
    status: int = UNKNOWN
    user: int = UNKNOWN
    group: int = UNKNOWN
    application: int = UNKNOWN
    queue: int = UNKNOWN
    number: int = UNKNOWN
    after: int | None = None
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if self.requested_ranks == UNKNOWN:
            object.__setattr__(self, "requested_ranks", self.ranks)

    @property
    def kind(self) -> int:
        """Which program it was, as far as is known: jobs of a kind scale alike. Else whose, so that users differ."""
        return self.application if self.application >= 0 else max(self.user, 0)

    @property
    def asked_s(self) -> float:
        """What its user asked for; where nobody knows, what it took."""
        return self.run_s if self.estimate_s is None else self.estimate_s


def usable(job: LoggedJob) -> bool:
    """Whether it ran, on processors, after the log began.

    >>> usable(LoggedJob(0.0, 10.0, 4)), usable(LoggedJob(0.0, 0.0, 4)), usable(LoggedJob(0.0, math.inf, 4))
    (True, False, False)
    """
    return job.ranks > 0 and 0.0 < job.run_s < math.inf and 0.0 <= job.submit_s < math.inf


def offered_load(jobs: Sequence[LoggedJob], processors: int) -> float:
    """Rank-seconds of all jobs over what the machine has from the log's beginning to the last submission.

    >>> offered_load([LoggedJob(0.0, 10.0, 4), LoggedJob(20.0, 30.0, 4)], 8)
    1.0
    """
    return sum(job.ranks * job.run_s for job in jobs) / (processors * max(job.submit_s for job in jobs))


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
