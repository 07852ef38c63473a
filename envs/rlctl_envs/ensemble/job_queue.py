"""The waiting jobs of fixed ranks as columns: an order over hundreds of them costs a few array operations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.ensemble.active_task import ORDERS, ActiveTask
from rlctl_envs.ensemble.orders import CHANGING, SCORES

Numbers = NDArray[np.float64]
RUN, RANKS, SUBMIT, ARRIVED = range(4)
_KEPT = {order: row for row, order in enumerate(name for name in SCORES if name not in CHANGING)}
"""Orders whose scores do not change while jobs wait, and are kept."""


class JobQueue:
    """Waiting jobs in order of arrival.

    Attributes:
        tasks: the jobs.
    """

    def __init__(self) -> None:
        self.tasks: list[ActiveTask] = []
        self._columns = np.zeros((4 + len(_KEPT), 64))
        self._scored = [0] * len(_KEPT)  # jobs at the head of the queue whose scores are there

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, task: ActiveTask) -> None:
        """Add a job as the last one."""
        count = len(self.tasks)
        if count == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
        job = task.job
        self._columns[:4, count] = task.reference_s, job.requested_ranks, job.submit_s, task.arrived_s
        self.tasks.append(task)

    def remove(self, task: ActiveTask) -> None:
        """Remove a job."""
        i, count = self.tasks.index(task), len(self.tasks)
        self._columns[:, i : count - 1] = self._columns[:, i + 1 : count]
        self._scored = [scored - (i < scored) for scored in self._scored]
        del self.tasks[i]

    @property
    def run_s(self) -> Numbers:
        """Run times as requested, seconds."""
        return self._column(RUN)

    @property
    def ranks(self) -> Numbers:
        """Processors of each."""
        return self._column(RANKS)

    @property
    def submit_s(self) -> Numbers:
        """When each was submitted, seconds on the clock of the log."""
        return self._column(SUBMIT)

    def wait_s(self, now_s: float) -> Numbers:
        """How long each has waited."""
        return now_s - self._column(ARRIVED)

    def scores(self, order: str, now_s: float) -> Numbers:
        """Of each job by one of ``active_task.ORDERS``; the highest starts first."""
        if order not in SCORES:
            return np.array([ORDERS[order](task, now_s) for task in self.tasks])
        if order in CHANGING:
            return np.asarray(SCORES[order](self.wait_s(now_s), self.run_s, self.ranks, self.submit_s))
        row, count = _KEPT[order], len(self.tasks)
        since = self._scored[row]
        if since < count:  # those that have come since the last time
            run_s, ranks, submit_s = self._columns[:ARRIVED, since:count]
            self._columns[4 + row, since:count] = SCORES[order](0.0, run_s, ranks, submit_s)
            self._scored[row] = count
        return self._column(4 + row)

    def weighted(
        self, weights: Numbers, now_s: float, free: int, total: int, releases: tuple[Numbers, Numbers]
    ) -> Numbers:
        """Scores of the jobs by weights of what is known of them; see ``job_scores.score_jobs``."""
        from rlctl_envs.ensemble.job_scores import score_jobs  # with Numba

        scores = np.empty(len(self.tasks))
        score_jobs(weights, self.run_s, self.ranks, self.wait_s(now_s), float(free), float(total), *releases, scores)
        return scores

    def best(self, scores: Numbers, most: float | None = None) -> ActiveTask | None:
        """The job with the highest score, the earliest of several; only of those of at most ``most`` ranks.

        None: there is none.
        """
        if not self.tasks:
            return None
        if most is None:
            return self.tasks[int(scores.argmax())]
        fits = self.ranks <= most
        best = int(np.where(fits, scores, -np.inf).argmax())
        return self.tasks[best] if fits[best] else None

    def _column(self, which: int) -> Numbers:
        column = self._columns[which, : len(self.tasks)]
        column.flags.writeable = False
        return column
