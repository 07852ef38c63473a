"""Sums up the cost of an ensemble, and the potential of its state."""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Sequence
from statistics import median

from rlctl_envs.ensemble.active_task import ActiveTask
from rlctl_envs.ensemble.job_request import JobRequest
from rlctl_envs.ensemble.options import Objective
from rlctl_envs.ensemble.state import EnsembleState

MOST_CREDIT = 0.9
"""Of a success, for a task that is still running."""

FULL = 0.98
"""Occupancy of a machine that counts as full, as MuMMI reports it (Bhatia et al. 2021)."""


class CostAccount:
    """Sums up costs, and what the potential consists of.

    Args:
        areas: node-seconds that each task of the workload, by number, is thought to need at best.
        gpu_s: GPU-seconds likewise, on as few GPUs as can be.
        bounds_s: what the slowdown of each is over.
        slowdowns: about the sum of all, for the scale.

    Attributes:
        successes: tasks that are done and worth having, within the window if there is one.
        work: node-seconds that these were thought to need at best.
        scale: reward for one unit of cost is minus this; it makes returns about -1.
        paid_nodes: nodes that are paid for now.
        watched_s: time so far, within the window if there is one.
        occupied_s: of it, weighted with the share of the GPUs that tasks held; of the cores, where there are no GPUs.
        full_s: of it, while that share was at least ``FULL``.
    """

    def __init__(
        self,
        objective: Objective,
        state: EnsembleState,
        areas: list[float],
        gpu_s: list[float],
        bounds_s: Sequence[float],
        slowdowns: float,
    ) -> None:
        self._objective, self._state, self._areas = objective, state, areas
        self._bounds_s = bounds_s
        self.paid_nodes = state.capacity.nodes
        self._at_s = 0.0
        self._sum = 0.0
        self._rate = 0.0  # of all tasks' slowdowns, per second
        self._gpus = 0
        self._waiting = 0.0  # node-seconds
        self._promised = 0.0  # sum of charge times expected end, of running tasks
        self._charged = 0.0  # sum of their charges
        self._partly = 0.0  # what they count for as successes
        self.work = 0.0
        self.successes = 0
        self.watched_s = self.occupied_s = self.full_s = 0.0
        o = objective
        only_nodes = o.node_second == 1.0 and o.gpu_second == o.slowdown == 0.0
        self._plain = only_nodes and o.window_s is None and o.goal is None
        possible = [area for area in areas if area < math.inf]
        self._typical = median(possible) if possible else 1.0
        if o.window_s is not None:
            there = o.node_second * state.capacity.nodes + o.gpu_second * state.capacity.total_gpus
            whole = there * (o.window_s[1] - o.window_s[0])
        elif o.goal is not None:
            whole = o.goal * (o.node_second * self._typical + o.gpu_second * (median(gpu_s) if gpu_s else 0.0))
        else:
            whole = o.node_second * math.fsum(possible) + o.gpu_second * math.fsum(gpu_s)
        self.scale = 1.0 / max(whole + o.slowdown * slowdowns, 1e-9)

    def cost(self, ended: bool) -> float | None:
        """Cost so far; None where it is the allocated node-seconds, which the driver counts."""
        goal = self._objective.goal
        if not ended or goal is None:
            return None if self._plain else self._sum
        missing = max(0.0, 1.0 - self.successes / goal)
        return self._sum + self._objective.unreached * missing / self.scale

    def elapse(self, now_s: float) -> None:
        """Charge the time until ``now_s``."""
        objective, since_s = self._objective, self._at_s
        self._at_s = now_s
        if objective.window_s is not None:
            since_s, now_s = max(since_s, objective.window_s[0]), min(now_s, objective.window_s[1])
        if now_s > since_s:
            state = self._state
            busy, there = (self._gpus, state.total_gpus) if state.total_gpus else (state.busy_ranks, state.total_cores)
            share = busy / there if there else 0.0
            self.watched_s += now_s - since_s
            self.occupied_s += share * (now_s - since_s)
            self.full_s += (now_s - since_s) * (share >= FULL)
            rate = objective.node_second * self.paid_nodes + objective.gpu_second * self._gpus
            self._sum += (now_s - since_s) * (rate + objective.slowdown * self._rate)

    def arrived(self, task: ActiveTask) -> None:
        """Begin to charge the slowdown of a task."""
        self._rate += 1.0 / self._bounds_s[task.job.number]

    def queued(self, task: ActiveTask) -> None:
        """Add a task to the waiting work."""
        task.area = self._state.least_area(task)
        self._waiting += task.area

    def unqueued(self, task: ActiveTask) -> None:
        """Remove a task from the waiting work."""
        self._waiting -= task.area

    def count(self, task: ActiveTask, sign: int) -> None:
        """A task begins to run (``sign`` 1) on ``task.shape`` from ``started_s`` to ``expected_s``, or ends to (-1)."""
        ranks = sign * task.shape.ranks
        self._state.promised_rank_s += ranks * task.expected_s
        self._state.busy_ranks += ranks
        self._promised += sign * task.charge * task.expected_s
        self._charged += sign * task.charge
        self._partly += sign * min(task.done, MOST_CREDIT)
        self._gpus += ranks * task.shape.gpu

    def progressed(self, task: ActiveTask, done: float) -> None:
        """Set the share of its work that a running task has done."""
        self._partly += min(done, MOST_CREDIT) - min(task.done, MOST_CREDIT)
        task.done = done

    def ended(self, task: ActiveTask, now_s: float) -> None:
        """Cease to charge a task, and count its success."""
        bound_s = self._bounds_s[task.job.number]
        self._rate -= 1.0 / bound_s
        window = self._objective.window_s
        if window is None or window[0] <= now_s <= window[1]:
            self._sum += self._objective.slowdown * max(0.0, 1.0 - (now_s - task.arrived_s) / bound_s)
            if task.worth:
                self.successes += 1
                self.work += self._areas[task.job.number]

    def potential(self, over: bool) -> float:
        """Potential of the present state, in units of reward; see ``rlctl.environments.campaign_env.Episode``.

        Where all tasks have to end, what is left of them costs node-seconds. Where some have to succeed, so many are
        missing; in a window, so many have been gained. A running one counts for the share that is done.
        """
        objective = self._objective
        if over or objective.node_second == 0.0:
            return 0.0
        weight = objective.node_second * self.scale
        if objective.window_s is not None:
            return weight * self._typical * (self.successes + self._partly)
        if objective.goal is not None:
            return weight * self._typical * min(0.0, self.successes + self._partly - objective.goal)
        return -weight * (self._waiting + max(0.0, self._promised - self._charged * self._at_s))


def greedy_slowdowns(jobs: Sequence[JobRequest], bounds_s: Sequence[float], cores: int) -> float:
    """Sum of the slowdowns of rigid jobs if, whenever something happens, those that fit start, the smallest area first.

    Slowdowns of drawn windows differ by a factor of a hundred: a scale for all would let a few decide what is learned.
    """
    coming = sorted(range(len(jobs)), key=lambda i: -jobs[i].arrives)
    waiting: list[tuple[float, int]] = []
    ends: list[tuple[float, int]] = []
    free, total = cores, 0.0
    while coming or ends:
        now_s = min(jobs[coming[-1]].arrives if coming else math.inf, ends[0][0] if ends else math.inf)
        while coming and jobs[coming[-1]].arrives <= now_s:
            job = coming.pop()
            insort(waiting, (jobs[job].estimate_s * jobs[job].requested_ranks, job))
        while ends and ends[0][0] <= now_s:
            free += heapq.heappop(ends)[1]
        left = []
        for area, job in waiting:
            ranks, run_s = jobs[job].requested_ranks, jobs[job].estimate_s
            if ranks > free:
                left.append((area, job))
                continue
            free -= ranks
            heapq.heappush(ends, (now_s + run_s, ranks))
            total += max(1.0, (now_s - jobs[job].arrives + run_s) / bounds_s[job])
        waiting = left
    return total
