"""The workload model of Lublin and Feitelson: sizes, run times and arrivals of rigid jobs on a supercomputer.

U. Lublin, D. G. Feitelson, "The workload on parallel supercomputers: modeling the characteristics of rigid jobs", J.
Parallel Distrib. Comput. 63 (2003) 1105-1122. The numbers are those for jobs of which nobody knows whether they are
interactive, as in the authors' program of 1999.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlctl_envs.ensemble.workloads.logged import LoggedJob

SERIAL, POWER_OF_TWO = 0.244, 0.576
"""Shares of the jobs on one processor, and on a power of two."""
SMALLEST, BELOW_LARGEST, FIRST_STAGE = 0.8, 2.5, 0.86
"""Of the logarithm of the size: least, where the first stage ends below the largest, and the share of that stage."""
SHORT, LONG = (4.2, 0.94), (312.0, 0.03)
"""Shape and scale of the two gamma distributions of the logarithm of the run time."""
SLOPE, INTERCEPT = -0.0054, 0.78
"""Of the share of short jobs, linear in the number of processors."""
LONGEST = 12.0
"""Greatest logarithm of a run time, some 45 hours."""
GAP, TO_ALL_HOURS = (10.2303, 0.4871), 1.0225
"""Shape and scale of the logarithm of the time between arrivals in rush hours; factor of the shape for all hours."""
LONGEST_GAP = 13.0
DAY, DAY_BEGINS = (8.1737, 3.9631), 11
"""Shape and scale of the distribution of a day's jobs over its half hours, and the one with which that day begins."""
SLOTS, SLOT_S = 48, 1800.0


def lublin(rng: np.random.Generator, count: int, nodes: int) -> list[LoggedJob]:
    """``count`` jobs on a machine of so many processors, by their time of submission; the first day begins at 0."""
    weights = day()
    now_s, jobs = 0.0, []
    for _ in range(count):
        now_s = _later(now_s, _gap(rng), weights)
        ranks = size(rng, nodes)
        jobs.append(LoggedJob(now_s, run_time(rng, ranks), ranks))
    return jobs


def size(rng: np.random.Generator, nodes: int) -> int:
    """Processors of a job: one, or two to the power of a two-stage uniform number, most often a whole one."""
    u = rng.random()
    if u <= SERIAL or nodes < 2:
        return 1
    largest = math.log2(nodes)
    middle = max(SMALLEST, largest - BELOW_LARGEST)
    low, high = (SMALLEST, middle) if rng.random() <= FIRST_STAGE else (middle, largest)
    exponent = rng.uniform(min(low, high), high)
    if u <= SERIAL + POWER_OF_TWO:
        exponent = math.floor(exponent + 0.5)
    return min(nodes, max(2, int(2.0**exponent + 0.5)))


def run_time(rng: np.random.Generator, ranks: int) -> float:
    """Seconds: the logarithm is of one of two gamma distributions (hyper-gamma), the shorter one for small jobs."""
    short = min(max(SLOPE * ranks + INTERCEPT, 0.0), 1.0)
    while True:
        logarithm = rng.gamma(*(SHORT if rng.random() <= short else LONG))
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
        logarithm = rng.gamma(GAP[0] * TO_ALL_HOURS, GAP[1])
        if logarithm <= LONGEST_GAP:
            return math.exp(logarithm)


def _later(now_s: float, gap_s: float, weights: NDArray[np.float64]) -> float:
    """When ``gap_s`` seconds of the mean rate have passed: time runs as fast as jobs arrive at that hour."""
    while True:
        slot = int(now_s // SLOT_S)
        rate = max(float(weights[slot % SLOTS]), 1e-6)
        left_s = (slot + 1) * SLOT_S - now_s
        if gap_s <= left_s * rate:
            return now_s + gap_s / rate
        gap_s -= left_s * rate
        now_s = (slot + 1) * SLOT_S
