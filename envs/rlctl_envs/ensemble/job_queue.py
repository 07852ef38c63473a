"""The waiting jobs of fixed ranks as columns: an order over hundreds of them costs a few array operations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.ensemble.active_task import ORDERS, ActiveTask
from rlctl_envs.ensemble.orders import CHANGING, SCORES

Numbers = NDArray[np.float64]
RUN, RANKS, SUBMIT, ARRIVED = range(4)


class JobQueue:
    """Waiting jobs in order of arrival.

    Attributes:
        tasks: the jobs.
        version: rises whenever one comes or goes.
    """

    def __init__(self) -> None:
        self.tasks: list[ActiveTask] = []
        self.version = 0
        self._columns = np.zeros((4, 64))
        self._scores: dict[str, tuple[int, Numbers]] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, task: ActiveTask) -> None:
        """Add a job as the last one."""
        count = len(self.tasks)
        if count == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
        job = task.job
        self._columns[:, count] = task.reference_s, job.requested_ranks, job.submit_s, task.arrived_s
        self.tasks.append(task)
        self.version += 1

    def remove(self, task: ActiveTask) -> None:
        """Remove a job."""
        i, count = self.tasks.index(task), len(self.tasks)
        self._columns[:, i : count - 1] = self._columns[:, i + 1 : count]
        del self.tasks[i]
        self.version += 1

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
        version, scores = self._scores.get(order, (-1, None))
        if scores is None or version != self.version:
            wait_s = self.wait_s(now_s) if order in CHANGING else self.run_s
            scores = SCORES[order](wait_s, self.run_s, self.ranks, self.submit_s)
            if order not in CHANGING:
                self._scores[order] = self.version, scores
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
        return self._columns[which, : len(self.tasks)]
