"""The workload model of Lublin and Feitelson: sizes, run times and arrivals of rigid jobs on a supercomputer.

U. Lublin, D. G. Feitelson, "The workload on parallel supercomputers: modeling the characteristics of rigid jobs", J.
Parallel Distrib. Comput. 63 (2003) 1105-1122. All numbers are those of the authors' program ``m_lublin99.c`` (Parallel
Workloads Archive), which are for a machine of 128 processors. It says how those of jobs of any type depend on a
machine's size: UHI is its logarithm, UMED 2.5 less. Batch and interactive jobs keep their distances here likewise.

Here as there: a size is 1, or 2 to the power of a two-stage uniform number, which is rounded for powers of two. The
logarithm of a run time is hyper-gamma. The logarithm of the time between arrivals is gamma, on a clock that runs as
fast as jobs arrive at that hour. Logarithms beyond 12 (45 hours) and 13 (five days) are drawn again. Days begin at
midnight. There, but not here, run times and submissions are cut to whole seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlctl_envs.ensemble.workloads.logged import LoggedJob, offered_load

LONGEST, LONGEST_GAP = 12.0, 13.0
"""Greatest logarithms of a run time and of a time between arrivals."""
SLOTS, SLOT_S = 48, 1800.0
DAY_S = SLOTS * SLOT_S
DAY_BEGINS = 11
"""The half hour, from 1, at which the distribution of a day's jobs begins."""


@dataclass(frozen=True, slots=True)
class Law:
    """The numbers for jobs of one type. In brackets, their names in the authors' program.

    Attributes:
        serial: share of jobs on one processor (SERIAL_PROB).
        power_of_two: share of jobs on a power of two (POW2_PROB); rounding makes some of the others one as well.
        smallest: least logarithm to base 2 of a parallel size (ULOW).
        middle: where the first stage ends, below the logarithm of the machine's size (UMED).
        largest: where the second one ends, likewise (UHI).
        first_stage: share of the first stage (UPROB).
        short: shape and scale of the gamma distribution of the logarithm of short run times (A1, B1).
        long: likewise (A2, B2).
        slope: of the share of short jobs over the number of processors (PA).
        intercept: likewise (PB).
        gap: shape and scale of the logarithm of the time between arrivals in rush hours (AARR, BARR).
        to_all_hours: factor of that shape for all hours (ARAR).
        day: shape and scale of the distribution of a day's jobs over its half hours (ANUM, BNUM).
        queue: what its jobs have in field 15 of a log.
    """

    serial: float
    power_of_two: float
    smallest: float
    middle: float
    largest: float
    first_stage: float
    short: tuple[float, float]
    long: tuple[float, float]
    slope: float
    intercept: float
    gap: tuple[float, float]
    to_all_hours: float
    day: tuple[float, float]
    queue: int = -1


ANY = Law(
    *(0.244, 0.576, 0.8, 2.5, 0.0, 0.86),
    *((4.2, 0.94), (312.0, 0.03), -0.0054, 0.78),
    *((10.2303, 0.4871), 1.0225, (8.1737, 3.9631)),
)
"""Of jobs of which nobody knows whether they are interactive."""
BATCH = Law(
    *(0.2927, 0.6686, 1.2, 2.0, 0.0, 0.875),
    *((6.57, 0.823), (639.1, 0.0156), -0.003, 0.6986),
    *((6.0415, 0.8531), 1.0519, (6.1271, 5.2740), 1),
)
INTERACTIVE = Law(
    *(0.1541, 0.625, 1.0, 4.0, 1.5, 0.705),
    *((3.8351, 0.6605), (7.073, 0.6856), -0.0118, 0.9156),
    *((6.5510, 0.6621), 0.9797, (8.9186, 3.6680), 0),
)
"""Of the two types. The program says of them that UMED is 5 and 3, and UHI 7 and 5.5, where the machine has 2^7."""


def lublin(
    rng: np.random.Generator, count: int, nodes: int, *, laws: Sequence[Law] = (ANY,), load: float | None = None
) -> list[LoggedJob]:
    """``count`` jobs on a machine of so many processors, by their time of submission; the first day begins at 0.

    Args:
        rng: the same one makes the same jobs.
        count: at least 1.
        nodes: processors.
        laws: types of jobs, which arrive independently; ``(BATCH, INTERACTIVE)`` for both.
        load: what ``offered_load`` is to be: the arrivals' clock is made faster or slower, so that days stay days. The
            jobs are the same, but for when they are submitted. None: as published.
    """
    clocks = [_Clock(day(law)) for law in laws]
    passed = [_gap(rng, law) for law in laws]
    jobs: list[LoggedJob] = []
    arrivals: list[tuple[int, float]] = []
    for i in range(count):
        submits = [clock.time_s(p) for clock, p in zip(clocks, passed, strict=True)]
        k = min(range(len(laws)), key=submits.__getitem__)
        ranks = size(rng, nodes, laws[k])
        run_s = run_time(rng, ranks, laws[k])
        jobs.append(LoggedJob(submits[k], run_s, ranks, status=1, queue=laws[k].queue, number=i + 1))
        arrivals.append((k, passed[k]))
        if i + 1 < count:
            passed[k] += _gap(rng, laws[k])
    if load is None:
        return jobs
    span_s = jobs[-1].submit_s * offered_load(jobs, nodes) / load
    # The last job of each type would be submitted at that time; one of them is, the others are before.
    speed = min(clocks[k].passed(span_s) / last for k, last in dict(arrivals).items())
    moved = [replace(job, submit_s=clocks[k].time_s(speed * p)) for job, (k, p) in zip(jobs, arrivals, strict=True)]
    return [replace(job, number=i + 1) for i, job in enumerate(sorted(moved, key=lambda job: job.submit_s))]


def size(rng: np.random.Generator, nodes: int, law: Law = ANY) -> int:
    """Processors of a job: one, or two to the power of a two-stage uniform number, most often a whole one."""
    u = rng.random()
    if u <= law.serial or nodes < 2:
        return 1
    largest = max(law.smallest, math.log2(nodes) - law.largest)
    middle = max(law.smallest, math.log2(nodes) - law.middle)
    low, high = (law.smallest, middle) if rng.random() <= law.first_stage else (middle, largest)
    exponent = rng.uniform(low, high)
    if u <= law.serial + law.power_of_two:
        exponent = math.floor(exponent + 0.5)
    return min(nodes, max(2, int(2.0**exponent + 0.5)))


def short_share(ranks: int, law: Law = ANY) -> float:
    """Chance that a job's run time is of the short distribution: less, the more processors it has."""
    return min(max(law.slope * ranks + law.intercept, 0.0), 1.0)


def run_time(rng: np.random.Generator, ranks: int, law: Law = ANY) -> float:
    """Seconds: the logarithm is of one of two gamma distributions (hyper-gamma), the shorter one for small jobs."""
    share = short_share(ranks, law)
    while True:
        logarithm = rng.gamma(*(law.short if rng.random() <= share else law.long))
        if logarithm <= LONGEST:
            return math.exp(logarithm)


def day(law: Law = ANY) -> NDArray[np.float64]:
    """[48] relative rate of arrivals in each half hour from midnight on; their mean is 1."""
    shape, scale = law.day
    edges = DAY_BEGINS - 0.5 + np.arange(SLOTS + 1)
    shares = np.diff(stats.gamma.cdf(edges, shape, scale=scale))
    rolled: NDArray[np.float64] = np.roll(shares, DAY_BEGINS - 1)
    return np.asarray(rolled * SLOTS / rolled.sum())


def _gap(rng: np.random.Generator, law: Law) -> float:
    while True:
        logarithm = rng.gamma(law.gap[0] * law.to_all_hours, law.gap[1])
        if logarithm <= LONGEST_GAP:
            return math.exp(logarithm)


class _Clock:
    """Goes as fast as jobs arrive at that hour, and as fast as time over a whole day."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self._edges_s = np.arange(SLOTS + 1) * SLOT_S
        self._passed = np.concatenate([[0.0], np.cumsum(weights) * SLOT_S])
        self._passed[-1] = DAY_S

    def time_s(self, passed: float) -> float:
        """The time at which so much has passed."""
        days, rest = divmod(passed, DAY_S)
        return days * DAY_S + float(np.interp(rest, self._passed, self._edges_s))

    def passed(self, time_s: float) -> float:
        """What has passed by then."""
        days, rest = divmod(time_s, DAY_S)
        return days * DAY_S + float(np.interp(rest, self._edges_s, self._passed))
