"""Scores of waiting rigid jobs: weighted sums of what is known of each, and of products.

Compiled with Numba, for rules and for ``fast_schedule``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

INPUTS = ("run", "ranks", "wait", "slowdown", "fits", "delay", "harmless", "small", "late")
"""What is known of a job.

``run``, ``ranks``, ``wait``, ``slowdown``, ``delay``: logarithms, scaled, of the requested time, the processors, the
time that it has waited, its slowdown if it started now (bounded at 10 s), and the time until it can start. ``fits``: it
can start now. *Small* is the job of the smallest area of those that do not fit. ``harmless``: it can start now and end
before *small* can start. ``small``: it is *small*. ``late``: logarithm, scaled, of how much later it would end.
"""
GLOBALS = ("queue", "free", "backlog")
"""Logarithm of the number of waiting jobs, free share of the machine, logarithm of the waiting work per processor."""
TERMS = (
    *INPUTS,
    *(f"{a}*{b}" for i, a in enumerate(INPUTS) for b in INPUTS[i:]),
    *(f"{a}*{b}" for a in INPUTS for b in GLOBALS),
)
"""What has a weight, in order."""

_N, _G = len(INPUTS), len(GLOBALS)
_PRODUCTS = _N * (_N + 1) // 2

Numbers = NDArray[np.float64]


@njit(cache=True)
def score_jobs(
    weights: Any, run_s: Any, ranks: Any, wait_s: Any, free: float, total: float, in_s: Any, cores: Any, scores: Any
) -> None:
    """Fill ``scores``: of each job in the queue, the highest starts first.

    Args:
        weights: of ``TERMS``, or of the first of them; the smallest weighted sum starts first.
        run_s, ranks, wait_s: of each job, in order of arrival.
        free, total: cores of the machine.
        in_s, cores: seconds until running tasks are expected to end, in order, after a 0; and the cores free then.
    """
    count = len(run_s)
    small, least, backlog = -1, math.inf, 0.0
    for j in range(count):
        area = run_s[j] * ranks[j]
        backlog += area
        if ranks[j] > free and area < least:
            small, least = j, area
    small_s = _delay_s(ranks[small], in_s, cores) if small >= 0 else math.inf
    linear = weights[:_N].copy()
    if len(weights) > _N:
        state = (math.log1p(count) / 3.0, free / total, math.log1p(backlog / total) / 5.0)
        for i in range(_N):
            for g in range(_G):
                linear[i] += weights[_N + _PRODUCTS + i * _G + g] * state[g]
    x = np.empty(_N)
    for j in range(count):
        fits = ranks[j] <= free
        delay_s = _delay_s(ranks[j], in_s, cores)
        late_s = max(run_s[j] - small_s, 0.0) if fits else 0.0
        x[0] = math.log(max(run_s[j], 1.0)) / 5.0
        x[1] = math.log2(ranks[j]) / 4.0
        x[2] = math.log1p(wait_s[j]) / 5.0
        x[3] = math.log(max((wait_s[j] + run_s[j]) / max(run_s[j], 10.0), 1.0)) / 3.0
        x[4] = 1.0 if fits else 0.0
        x[5] = math.log1p(delay_s) / 5.0
        x[6] = 1.0 if fits and late_s == 0.0 else 0.0
        x[7] = 1.0 if j == small else 0.0
        x[8] = math.log1p(late_s) / 5.0
        total_score = 0.0
        for i in range(_N):
            total_score += linear[i] * x[i]
        if len(weights) > _N:
            k = _N
            for i in range(_N):
                for o in range(i, _N):
                    total_score += weights[k] * x[i] * x[o]
                    k += 1
        scores[j] = -total_score


@njit(cache=True)
def _delay_s(ranks: float, in_s: Any, cores: Any) -> float:
    """Seconds until so many cores are expected to be free; of more than there are, until nothing runs."""
    return float(in_s[min(np.searchsorted(cores, ranks), len(in_s) - 1)])
