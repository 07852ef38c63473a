"""Schedules of rigid jobs by weights, computed at once: what campaigns do on their twins, a hundred times as fast.

For tuning: here are no decisions, tasks and events, only arrays. A test compares the starts with the campaign's own, to
the digit. Compiled with Numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlctl.core.policy import Policy
from rlctl_envs.ensemble.job_scores import score_jobs
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.workload import Workload

FREE, WAITING, RUNNING, ARRIVED, STARTED = range(5)
"""Counts: free cores, jobs in the queue, running jobs, jobs that have arrived, jobs that have started."""


@runtime_checkable
class WeighsJobs(Protocol):
    """A rule that starts the job of the highest score; where that has to fit and does not, one that does not delay it.

    Attributes:
        weights: see ``job_scores.score_jobs``.
        spare: whether such a job may also take what the first one will leave free; otherwise it ends before.
    """

    weights: NDArray[np.float64]
    spare: int


def play(
    options: EnsembleOptions, draw: Callable[[int], Workload], cores: int, players: Sequence[tuple[Policy, int]]
) -> list[dict[str, float]] | None:
    """See ``CampaignFactory.play``; None, before anything is drawn, for what is not played exactly here.

    Args:
        draw: the workload of an instance.
    """
    o, program, trouble = options.objective, options.program, options.workload.trouble
    plain = o.node_second == o.gpu_second == 0.0 and o.goal is None and o.window_s is None
    sure = trouble.failures_per_rank_s == trouble.scatter == trouble.traps_per_work.high == 0.0
    if not plain or not sure or program.walltime_s is not None or any(program.start_up_s.values()):
        return None
    if not all(isinstance(policy, WeighsJobs) for policy in {id(policy): policy for policy, _ in players}.values()):
        return None
    tables = {instance: _table(draw(instance)) for instance in {instance for _, instance in players}}
    names_next, backfills, found = options.rigid != "any", options.rigid == "next_backfilled", []
    for policy, instance in players:
        assert isinstance(policy, WeighsJobs)
        arrives_s, run_s, request_s, _ = jobs = tables[instance]
        starts_s = np.empty(len(run_s))
        decisions = schedule(jobs, cores, names_next, backfills, bool(policy.spare), policy.weights, starts_s)
        ends_s = starts_s + run_s
        if ends_s.max() >= options.allocation_s:
            return None
        over_s = np.maximum(run_s if o.slowdown_over == "run" else request_s, o.bound_s)
        cost = o.slowdown * float(np.maximum(1.0, (ends_s - arrives_s) / over_s).sum())
        found.append({"cost": cost, "successes": float(len(run_s)), "decisions": float(decisions)})
    return found


def _table(workload: Workload) -> tuple[NDArray[np.float64], ...]:
    """Arrivals, run times, requested times and processors of all jobs, in order of arrival."""
    rows = [
        (job.arrives, workload.duration_s(job.number, job.requested_ranks), job.estimate_s, float(job.requested_ranks))
        for job in sorted(workload.jobs, key=lambda job: (job.arrives, job.number))
    ]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


@njit(cache=True)
def schedule(
    jobs: Any,
    cores: int,
    names_next: bool,
    backfills: bool,
    spare: bool,
    weights: Any,
    starts_s: Any,
) -> int:
    """Fill ``starts_s`` with the start of each job; returns how many decisions that takes.

    Args:
        jobs: arrivals, run times, requested times and ranks, in order of arrival.
        names_next: whether a decision names the job that starts next; otherwise it starts one that fits, or waits.
        backfills: whether others start while the named one waits.
        spare: whether a job that starts before one that does not fit may also take what that one will leave free.
        weights: see ``job_scores.score_jobs``.
    """
    arrives_s, _, request_s, ranks = jobs
    count = len(arrives_s)
    queue, running = np.empty(count, np.int64), np.empty(count, np.int64)  # in order of arrival; by expected end
    ends_s, expected_s, scores = np.empty(count), np.empty(count), np.empty(count)
    turns = np.empty(count, np.int64)  # which was started first
    books = (queue, running, turns, starts_s, ends_s, expected_s)
    n = np.zeros(5, np.int64)
    n[FREE] = cores
    now_s, decisions = 0.0, 0
    while n[STARTED] < count:
        while n[WAITING] == 0 or not (names_next or _some_fits(n, queue, ranks)):
            now_s = _pass(n, now_s, jobs, books, not names_next)
        waits = queue[: n[WAITING]]
        in_s, then = _releases(n, now_s, running, expected_s, ranks)
        score_jobs(
            weights,
            request_s[waits],
            ranks[waits],
            now_s - arrives_s[waits],
            float(n[FREE]),
            float(cores),
            in_s,
            then,
            scores,
        )
        decisions += 1
        place = int(np.argmax(scores[: n[WAITING]]))
        if not names_next and ranks[queue[place]] > n[FREE]:
            place = _harmless(n, now_s, jobs, books, scores, queue[place], spare)
            if place < 0:
                now_s = _pass(n, now_s, jobs, books, True)
                continue
        job = queue[place]
        _remove(queue, n, WAITING, place)
        if ranks[job] > n[FREE]:
            by_s, _ = _expected(n, running, expected_s, ranks, ranks[job])
            while ranks[job] > n[FREE]:
                if backfills:
                    _backfill(n, now_s, by_s, jobs, books)
                now_s = _pass(n, now_s, jobs, books, False)
        _start(n, now_s, job, jobs, books)
    return decisions


@njit(cache=True)
def _pass(n: Any, now_s: float, jobs: Any, books: Any, whole: bool) -> float:
    """Let the next arrival or end happen, an arrival first, or all of its instant if ``whole``; returns the time."""
    arrives_s, _, _, ranks = jobs
    queue, running, turns, _, ends_s, _ = books
    count, first = len(arrives_s), True
    while True:
        which, end_s = -1, math.inf
        for i in range(n[RUNNING]):
            job = running[i]
            if ends_s[job] < end_s or (ends_s[job] == end_s and turns[job] < turns[running[which]]):
                which, end_s = i, ends_s[job]
        arrival_s = arrives_s[n[ARRIVED]] if n[ARRIVED] < count else math.inf
        at_s = min(arrival_s, end_s)
        if not first and at_s > now_s:
            return now_s
        now_s = max(now_s, at_s)
        if arrival_s <= end_s:
            queue[n[WAITING]] = n[ARRIVED]
            n[WAITING] += 1
            n[ARRIVED] += 1
        else:
            n[FREE] += ranks[running[which]]
            _remove(running, n, RUNNING, which)
        if not whole:
            return now_s
        first = False


@njit(cache=True)
def _start(n: Any, now_s: float, job: int, jobs: Any, books: Any) -> None:
    _, run_s, request_s, ranks = jobs
    _, running, turns, starts_s, ends_s, expected_s = books
    turns[job] = n[STARTED]
    n[STARTED] += 1
    starts_s[job], ends_s[job], expected_s[job] = now_s, now_s + run_s[job], now_s + request_s[job]
    n[FREE] -= ranks[job]
    at = n[RUNNING]
    while at > 0 and expected_s[running[at - 1]] > expected_s[job]:
        running[at] = running[at - 1]
        at -= 1
    running[at] = job
    n[RUNNING] += 1


@njit(cache=True)
def _backfill(n: Any, now_s: float, by_s: float, jobs: Any, books: Any) -> None:
    """Start, in order of arrival, what fits and is requested to end before ``by_s``."""
    _, _, request_s, ranks = jobs
    queue, at = books[0], 0
    while at < n[WAITING]:
        job = queue[at]
        if ranks[job] <= n[FREE] and now_s + request_s[job] < by_s:
            _remove(queue, n, WAITING, at)
            _start(n, now_s, job, jobs, books)
        else:
            at += 1


@njit(cache=True)
def _remove(row: Any, n: Any, which: int, at: int) -> None:
    for i in range(at, n[which] - 1):
        row[i] = row[i + 1]
    n[which] -= 1


@njit(cache=True)
def _some_fits(n: Any, queue: Any, ranks: Any) -> bool:
    return bool((ranks[queue[: n[WAITING]]] <= n[FREE]).any())


@njit(cache=True)
def _releases(n: Any, now_s: float, running: Any, expected_s: Any, ranks: Any) -> Any:
    """As ``EnsembleState.releases``."""
    in_s, then = np.zeros(n[RUNNING] + 1), np.zeros(n[RUNNING] + 1)
    then[0] = n[FREE]
    for i in range(n[RUNNING]):
        in_s[i + 1] = max(expected_s[running[i]] - now_s, 0.0)
        then[i + 1] = then[i] + ranks[running[i]]
    return in_s, then


@njit(cache=True)
def _expected(n: Any, running: Any, expected_s: Any, ranks: Any, need: float) -> tuple[float, float]:
    """When so many cores are expected to be free, and how many will be left besides."""
    free = float(n[FREE])
    for i in range(n[RUNNING]):
        free += ranks[running[i]]
        if free >= need:
            return float(expected_s[running[i]]), free - need
    return math.inf, 0.0


@njit(cache=True)
def _harmless(n: Any, now_s: float, jobs: Any, books: Any, scores: Any, first: int, spare: bool) -> int:
    """The place of the job with the highest score that fits and does not delay the first one; -1: there is none."""
    _, _, request_s, ranks = jobs
    queue, running, _, _, _, expected_s = books
    shadow_s, left = _expected(n, running, expected_s, ranks, ranks[first])
    shadow_s = max(shadow_s, now_s)
    best, place = -math.inf, -1
    for at in range(n[WAITING]):
        job = queue[at]
        harmless = now_s + request_s[job] <= shadow_s or (spare and ranks[job] <= left)
        if ranks[job] <= n[FREE] and harmless and scores[at] > best:
            best, place = scores[at], at
    return place
