"""The workload model of Lublin and Feitelson: sizes, run times and arrivals of rigid jobs on a supercomputer.

U. Lublin, D. G. Feitelson, "The workload on parallel supercomputers: modeling the characteristics of rigid jobs", J.
Parallel Distrib. Comput. 63 (2003) 1105-1122. All numbers are those of the authors' program ``m_lublin99.c`` (Parallel
Workloads Archive), for a machine of 128 processors: UHI is the logarithm of a machine's size, UMED 2.5 less.

The program draws jobs of either type by one set of parameters, or interactive and batch jobs, each by its own, and
merges both. Here as there: a size is 1, or 2 to the power of a two-stage uniform number, rounded for powers of two.
The logarithm of a run time is hyper-gamma. The logarithm of the time between arrivals is gamma, on a clock that runs as
fast as jobs arrive at that hour. Logarithms beyond 12 (45 hours) and 13 (five days) are drawn again. Days begin at
midnight. There, but not here, run times and submissions are cut to whole seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from rlctl_envs.ensemble.workloads.logged import LoggedJob

LONGEST, LONGEST_GAP = 12.0, 13.0
"""Greatest logarithms of a run time and of a time between arrivals."""
SLOTS, SLOT_S = 48, 1800.0
DAY_S = SLOTS * SLOT_S
DAY_BEGINS = 11
"""The half hour, from 1, at which the distribution of a day's jobs begins."""


class JobType(NamedTuple):
    """Parameters of jobs of a type; in brackets, the names in the authors' program.

    Attributes:
        serial: share of jobs on one processor (SERIAL_PROB).
        power_of_two: share of jobs on a power of two (POW2_PROB); rounding makes some of the others one as well.
        smallest: least logarithm to base 2 of a parallel size (ULOW).
        first_stage: share of the first stage (UPROB), which ends ``MIDDLE`` below the logarithm of the machine's size.
        short, long: shape and scale of the gamma distributions of the logarithms of run times (A1, B1; A2, B2).
        slope, intercept: of the share of short jobs over the number of processors (PA, PB).
        gap: shape and scale of that of the logarithm of the time between arrivals, at all hours (AARR ARAR, BARR).
        day: shape and scale of the distribution of a day's jobs over its half hours (ANUM, BNUM).
    """

    serial: float
    power_of_two: float
    smallest: float
    first_stage: float
    short: tuple[float, float]
    long: tuple[float, float]
    slope: float
    intercept: float
    gap: tuple[float, float]
    day: tuple[float, float]


MIDDLE = 2.5
"""Where the first stage of sizes ends, below the logarithm of the machine's size (UMED, UHI)."""
EITHER = JobType(
    serial=0.244,
    power_of_two=0.576,
    smallest=0.8,
    first_stage=0.86,
    short=(4.2, 0.94),
    long=(312.0, 0.03),
    slope=-0.0054,
    intercept=0.78,
    gap=(10.2303 * 1.0225, 0.4871),
    day=(8.1737, 3.9631),
)
BATCH = JobType(
    serial=0.2927,
    power_of_two=0.6686,
    smallest=1.2,
    first_stage=0.875,
    short=(6.57, 0.823),
    long=(639.1, 0.0156),
    slope=-0.003,
    intercept=0.6986,
    gap=(6.0415 * 1.0519, 0.8531),
    day=(6.1271, 5.2740),
)
INTERACTIVE = JobType(
    serial=0.1541,
    power_of_two=0.625,
    smallest=1.0,
    first_stage=0.705,
    short=(3.8351, 0.6605),
    long=(7.073, 0.6856),
    slope=-0.0118,
    intercept=0.9156,
    gap=(6.5510 * 0.9797, 0.6621),
    day=(8.9186, 3.6680),
)


def lublin(
    rng: np.random.Generator, count: int, nodes: int, *, typed: bool = False, begin_s: float = 0.0
) -> list[LoggedJob]:
    """``count`` jobs on a machine of ``nodes`` processors, by their time of submission; the first day begins at 0.

    Args:
        typed: interactive and batch jobs, in place of jobs of either type.
        begin_s: jobs from then on.
    """
    stream = _jobs(rng, nodes, EITHER, begin_s)
    if typed:
        streams = (_jobs(rng, nodes, of, begin_s) for of in (INTERACTIVE, BATCH))
        stream = heapq.merge(*streams, key=lambda job: job.submit_s)
    return list(itertools.islice(stream, count))


def _jobs(rng: np.random.Generator, nodes: int, of: JobType, begin_s: float) -> Iterable[LoggedJob]:
    edges_s, passed_s = np.arange(SLOTS + 1) * SLOT_S, np.concatenate([[0.0], np.cumsum(day(of)) * SLOT_S])
    passed_s[-1] = DAY_S
    days, rest = divmod(begin_s, DAY_S)
    # On a clock that runs as fast as jobs arrive at that hour, and as fast as time over a whole day.
    passed = days * DAY_S + float(np.interp(rest, edges_s, passed_s))
    while True:
        passed += _gap(rng, of)
        days, rest = divmod(passed, DAY_S)
        ranks = size(rng, nodes, of)
        run_s = run_time(rng, ranks, of)
        yield LoggedJob(days * DAY_S + float(np.interp(rest, passed_s, edges_s)), run_s, ranks)


def size(rng: np.random.Generator, nodes: int, of: JobType = EITHER) -> int:
    """Processors of a job: one, or two to the power of a two-stage uniform number, most often a whole one."""
    u = rng.random()
    if u <= of.serial or nodes < 2:
        return 1
    largest = max(of.smallest, math.log2(nodes))
    middle = max(of.smallest, math.log2(nodes) - MIDDLE)
    low, high = (of.smallest, middle) if rng.random() <= of.first_stage else (middle, largest)
    exponent = rng.uniform(low, high)
    if u <= of.serial + of.power_of_two:
        exponent = math.floor(exponent + 0.5)
    return min(nodes, max(2, int(2.0**exponent + 0.5)))


def short_share(ranks: int, of: JobType = EITHER) -> float:
    """Chance that a job's run time is of the short distribution: less, the more processors it has."""
    return min(max(of.slope * ranks + of.intercept, 0.0), 1.0)


def run_time(rng: np.random.Generator, ranks: int, of: JobType = EITHER) -> float:
    """Seconds: the logarithm is of one of two gamma distributions (hyper-gamma), the shorter one for small jobs."""
    share = short_share(ranks, of)
    while True:
        logarithm = rng.gamma(*(of.short if rng.random() <= share else of.long))
        if logarithm <= LONGEST:
            return math.exp(logarithm)


def day(of: JobType = EITHER) -> NDArray[np.float64]:
    """[48] relative rate of arrivals in each half hour from midnight on; their mean is 1."""
    shape, scale = of.day
    edges = DAY_BEGINS - 0.5 + np.arange(SLOTS + 1)
    shares = np.diff(gammainc(shape, edges / scale))
    rolled: NDArray[np.float64] = np.roll(shares, DAY_BEGINS - 1)
    return np.asarray(rolled * SLOTS / rolled.sum())


def _gap(rng: np.random.Generator, of: JobType) -> float:
    while True:
        logarithm = rng.gamma(*of.gap)
        if logarithm <= LONGEST_GAP:
            return math.exp(logarithm)
