"""Decisions that name the job which starts next: it is committed, and time passes until it fits.

This is how RLScheduler decides (Zhang, Dai, He, Bao, Xie 2020, "RLScheduler: An Automated HPC Batch Job Scheduler Using
Reinforcement Learning", SC'20), and what happens at one instant happens in its order: arrivals before ends, one by one,
and only while nothing can be decided.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from rlctl.core.campaign import Command
from rlctl.core.task import Event
from rlctl_envs.ensemble.active_task import ActiveTask
from rlctl_envs.ensemble.job_request import TaskShape
from rlctl_envs.ensemble.lifecycle import TaskLifecycle
from rlctl_envs.ensemble.state import EnsembleState

Starter = Callable[[ActiveTask, TaskShape], list[Command]]


class NextJob:
    """Starts the committed job as soon as it fits, and others meanwhile if ``backfill``.

    Args:
        start: starts a task that fits.
        backfill: while the committed job waits, others start in order of submission if they fit and end, as requested,
            before the committed one is expected to start. That time is estimated once, when the job is committed.

    Attributes:
        look_again: whether more may fit than at the last look, other than by the end of a job.
    """

    def __init__(self, tasks: TaskLifecycle, state: EnsembleState, start: Starter, backfill: bool) -> None:
        self._tasks, self._state, self._start, self._backfill = tasks, state, start, backfill
        self._ends: deque[tuple[ActiveTask, Event]] = deque()  # not looked at yet
        self._expected_s = math.inf
        self._looked_at = 0  # jobs at the head of the queue that cannot have become able to start
        self.look_again = False

    @property
    def due(self) -> bool:
        """Whether the next job has to be chosen."""
        return self._state.committed is None and bool(self._state.waiting)

    def ended(self, task: ActiveTask, event: Event) -> None:
        """Take note of the end of an attempt."""
        self._ends.append((task, event))

    def commit(self, task: ActiveTask) -> list[Command]:
        """Commit a waiting job; returns what follows."""
        self._state.committed = task
        self._expected_s = self._expected(task.job.requested_ranks)
        self.look_again = True
        return self.follow_up()

    def follow_up(self) -> list[Command]:
        """Take what has happened in, one by one, until the next job has to be chosen; returns what follows."""
        commands: list[Command] = []
        if self.look_again:
            self.look_again = False
            commands += self._advance()
        while not self.due and self._happen():
            commands += self._advance()
        return commands

    def _expected(self, ranks: int) -> float:
        """When so many ranks are expected to be free; infinite: never."""
        free = self._state.free_cores
        for task in sorted(self._state.running.values(), key=attrgetter("expected_s")):
            if free >= ranks:
                break
            free += task.shape.ranks
            if free >= ranks:
                return task.expected_s
        return self._state.now_s if free >= ranks else math.inf

    def _happen(self) -> bool:
        """The next arrival or end; False if none has come."""
        tasks, ends = self._tasks, self._ends
        if tasks.due and (not ends or tasks.coming[-1][0] <= ends[0][1].time_s):
            self._looked_at = len(self._state.waiting)
            tasks.arrive_next()
        elif ends:
            self._looked_at = 0
            tasks.ended(*ends.popleft())
        else:
            return False
        return True

    def _advance(self) -> list[Command]:
        """Start the committed job if it fits; otherwise what may start before it."""
        state, committed, queue = self._state, self._state.committed, self._state.queue
        if committed is None or queue is None:
            return []
        if self._tasks.again:  # what lost its node comes first
            self.look_again = True
            return []
        if state.fits(committed, committed.shapes[0]):
            state.committed = None
            return self._start(committed, committed.shapes[0])
        # Jobs that did not start at the last look do not start now either if all that has happened is an arrival.
        first, self._looked_at = self._looked_at, 0
        if not self._backfill or state.free_cores <= 0 or first >= len(queue):
            return []
        in_time = (queue.ranks[first:] <= state.free_cores) & (state.now_s + queue.run_s[first:] < self._expected_s)
        commands: list[Command] = []
        for task in [queue.tasks[first + i] for i in in_time.nonzero()[0]]:
            if state.fits(task, task.shapes[0]):
                commands += self._start(task, task.shapes[0])
        return commands
