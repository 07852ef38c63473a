"""The workload model of Lublin and Feitelson: sizes, run times and arrivals of rigid jobs on a supercomputer.

U. Lublin, D. G. Feitelson, "The workload on parallel supercomputers: modeling the characteristics of rigid jobs", J.
Parallel Distrib. Comput. 63 (2003) 1105-1122. All numbers are those of the authors' program ``m_lublin99.c`` (Parallel
Workloads Archive), for a machine of 128 processors: UHI is the logarithm of a machine's size, UMED 2.5 less.

Here as there: a size is 1, or 2 to the power of a two-stage uniform number, which is rounded for powers of two. The
logarithm of a run time is hyper-gamma. The logarithm of the time between arrivals is gamma, on a clock that runs as
fast as jobs arrive at that hour. Logarithms beyond 12 (45 hours) and 13 (five days) are drawn again. Days begin at
midnight. There, but not here, run times and submissions are cut to whole seconds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlctl_envs.ensemble.workloads.logged import LoggedJob

LONGEST, LONGEST_GAP = 12.0, 13.0
"""Greatest logarithms of a run time and of a time between arrivals."""
SLOTS, SLOT_S = 48, 1800.0
DAY_S = SLOTS * SLOT_S
DAY_BEGINS = 11
"""The half hour, from 1, at which the distribution of a day's jobs begins."""


# Of jobs of either type, batch or interactive. In brackets, the names in the authors' program.
SERIAL = 0.244  # share of jobs on one processor (SERIAL_PROB)
POWER_OF_TWO = 0.576  # share of jobs on a power of two (POW2_PROB); rounding makes some of the others one as well
SMALLEST = 0.8  # least logarithm to base 2 of a parallel size (ULOW)
MIDDLE = 2.5  # where the first stage ends, below the logarithm of the machine's size (UMED)
FIRST_STAGE = 0.86  # share of the first stage (UPROB); the second one ends at the machine's size (UHI)
SHORT = (4.2, 0.94)  # shape and scale of the gamma distribution of the logarithm of short run times (A1, B1)
LONG = (312.0, 0.03)  # likewise (A2, B2)
SLOPE, INTERCEPT = -0.0054, 0.78  # of the share of short jobs over the number of processors (PA, PB)
GAP = (10.2303 * 1.0225, 0.4871)  # of the logarithm of the time between arrivals, at all hours (AARR ARAR, BARR)
DAY = (8.1737, 3.9631)  # shape and scale of the distribution of a day's jobs over its half hours (ANUM, BNUM)


def lublin(rng: np.random.Generator, count: int, nodes: int) -> list[LoggedJob]:
    """``count`` jobs on a machine of ``nodes`` processors, by their time of submission; the first day begins at 0."""
    edges_s, passed_s = np.arange(SLOTS + 1) * SLOT_S, np.concatenate([[0.0], np.cumsum(day()) * SLOT_S])
    passed_s[-1] = DAY_S
    passed = 0.0  # on a clock that runs as fast as jobs arrive at that hour, and as fast as time over a whole day
    jobs: list[LoggedJob] = []
    for _ in range(count):
        passed += _gap(rng)
        days, rest = divmod(passed, DAY_S)
        ranks = size(rng, nodes)
        run_s = run_time(rng, ranks)
        jobs.append(LoggedJob(days * DAY_S + float(np.interp(rest, passed_s, edges_s)), run_s, ranks))
    return jobs


def size(rng: np.random.Generator, nodes: int) -> int:
    """Processors of a job: one, or two to the power of a two-stage uniform number, most often a whole one."""
    u = rng.random()
    if u <= SERIAL or nodes < 2:
        return 1
    largest = max(SMALLEST, math.log2(nodes))
    middle = max(SMALLEST, math.log2(nodes) - MIDDLE)
    low, high = (SMALLEST, middle) if rng.random() <= FIRST_STAGE else (middle, largest)
    exponent = rng.uniform(low, high)
    if u <= SERIAL + POWER_OF_TWO:
        exponent = math.floor(exponent + 0.5)
    return min(nodes, max(2, int(2.0**exponent + 0.5)))


def short_share(ranks: int) -> float:
    """Chance that a job's run time is of the short distribution: less, the more processors it has."""
    return min(max(SLOPE * ranks + INTERCEPT, 0.0), 1.0)


def run_time(rng: np.random.Generator, ranks: int) -> float:
    """Seconds: the logarithm is of one of two gamma distributions (hyper-gamma), the shorter one for small jobs."""
    share = short_share(ranks)
    while True:
        logarithm = rng.gamma(*(SHORT if rng.random() <= share else LONG))
        if logarithm <= LONGEST:
            return math.exp(logarithm)


def day() -> NDArray[np.float64]:
    """[48] relative rate of arrivals in each half hour from midnight on; their mean is 1."""
    shape, scale = DAY
    edges = DAY_BEGINS - 0.5 + np.arange(SLOTS + 1)
    shares = np.diff(stats.gamma.cdf(edges, shape, scale=scale))
    rolled: NDArray[np.float64] = np.roll(shares, DAY_BEGINS - 1)
    return np.asarray(rolled * SLOTS / rolled.sum())


def _gap(rng: np.random.Generator) -> float:
    while True:
        logarithm = rng.gamma(*GAP)
        if logarithm <= LONGEST_GAP:
            return math.exp(logarithm)
