"""Learns mean and covariance of a Gaussian process from the functions of earlier campaigns.

Expectation maximization under a normal-inverse-Wishart hyperprior whose centre is a common Matern kernel (Schwaighofer,
Tresp and Yu, NIPS 2004, equations 7 to 9): a few campaigns move it a little, many determine it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from rlctl.surrogates.blas_threads import on_one_thread
from rlctl.surrogates.gaussian_process import GaussianProcess
from rlctl.surrogates.learned_process import LearnedProcess, factor, matern
from rlctl.surrogates.pooled_scale import PooledScale

Floats = NDArray[np.float64]

MOST_POINTS = 256
"""Points by which mean and covariance are represented."""

MOST_OF_ONE = 160
"""Evaluations of one campaign that are learned from."""

_STEPS, _FUNCTIONS = 15, 32
_CAMPAIGNS = 2.0
"""Campaigns that the common kernel counts for."""

_MEAN = 0.3
"""Campaigns that a mean of zero counts for."""


@dataclass(frozen=True, slots=True)
class EarlierOutput:
    """An output of an earlier campaign: features [n, features], and values [n]."""

    x: Floats
    y: Floats


@on_one_thread
def learn_process(
    campaigns: Sequence[EarlierOutput],
    groups: NDArray[np.int64],
    space: Floats,
    seed: int,
    *,
    noisy: bool = True,
    warp: bool = True,
) -> LearnedProcess:
    """Learn from campaigns, of which each has at least one evaluation.

    Args:
        groups: length scales of the features, see ``GaussianProcess``.
        space: features of points spread over all that can be evaluated, [p, features].
        seed: of the choice of points.
        noisy: whether repeated evaluations differ.
        warp: whether skewness is transformed.
    """
    rng = np.random.default_rng([seed, 11])
    scale = PooledScale.of([one.y for one in campaigns], warp)
    kept = [_some(one.x, scale.warped(one.y), rng) for one in campaigns]
    xs = [x for x, _ in kept]
    zs, amplitudes = _alike([z for _, z in kept])
    kernel = _common_kernel(xs, zs, groups, noisy)
    lengths, signal, noise = np.exp(kernel[:-2])[groups], math.exp(kernel[-2]), math.exp(kernel[-1])
    level = max(float(np.var([z.mean() for z in zs])), 0.02)
    points = _representatives(np.vstack(xs), space, rng)
    prior = signal * matern(points / lengths, points / lengths) + level
    lower = factor(prior)
    mean, covariance = np.zeros(len(points)), prior
    projections = [_nystrom(signal, lengths, level, points, lower, x, noise) for x in xs]
    for _ in range(_STEPS):
        mean, covariance = _step(projections, zs, prior, mean, covariance)
    # In coordinates in which the common kernel is the identity: what campaigns vary by, beyond it.
    inner = scipy.linalg.solve_triangular(lower, covariance - prior, lower=True)
    inner = scipy.linalg.solve_triangular(lower, inner.T, lower=True)
    values, vectors = np.linalg.eigh(0.5 * (inner + inner.T))
    most = np.argsort(-np.abs(values))[:_FUNCTIONS]
    return LearnedProcess(
        scale,
        lengths,
        signal,
        level,
        points,
        weights=scipy.linalg.cho_solve((lower, True), mean),
        projection=scipy.linalg.solve_triangular(lower, vectors[:, most], lower=True, trans="T"),
        variances=np.maximum(values[most], -0.95),
        usual=np.array([0.0, math.log(0.05), kernel[-1]]),
        deviations=np.array([min(max(0.15, float(np.std(np.log(amplitudes)))), 0.7), 1.5, 1.0]),
    )


def _some(x: Floats, z: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Evaluations of one campaign: the best quarter of those that are kept, and others at random."""
    if len(z) <= MOST_OF_ONE:
        return x, z
    order, best = np.argsort(z, kind="stable"), MOST_OF_ONE // 4
    kept = np.r_[order[:best], rng.choice(order[best:], MOST_OF_ONE - best, replace=False)]
    return x[kept], z[kept]


def _alike(zs: Sequence[Floats]) -> tuple[list[Floats], Floats]:
    """Outputs as if all campaigns had the same spread, and the factors by which they do not, [campaigns]."""
    spreads = np.array([float(z.std()) if len(z) > 2 else math.nan for z in zs])
    known = np.isfinite(spreads) & (spreads > 1e-9)
    if known.sum() < 2:
        return list(zs), np.ones(len(zs))
    logs = np.log(spreads[known])
    counts = np.array([len(z) for z in zs])[known]
    # A spread is itself uncertain: by about 1 / sqrt(n / 2) of its size.
    between = max(float(np.var(logs)) - float(np.mean(2.0 / counts)), 0.0)
    factors = np.ones(len(zs))
    factors[known] = np.exp((logs - np.median(logs)) * between / (between + 2.0 / counts))
    return [z.mean() + (z - z.mean()) / one for z, one in zip(zs, factors, strict=True)], factors


def _common_kernel(xs: Sequence[Floats], zs: Sequence[Floats], groups: NDArray[np.int64], noisy: bool) -> Floats:
    """Logarithms of length scales, signal and noise variance: averages over campaigns, each fitted alone."""
    found = []
    for x, z in zip(xs[:24], zs[:24], strict=True):
        process = GaussianProcess(groups, noisy)
        spread = float(z.std()) or 1.0
        process.fit(x, (z - z.mean()) / spread)
        shift = np.zeros_like(process.parameters)
        shift[-2:] = 2.0 * math.log(spread) if len(z) > 2 else 0.0
        found.append(process.parameters + shift)
    return np.asarray(np.mean(found, axis=0))


def _representatives(evaluated: Floats, space: Floats, rng: np.random.Generator) -> Floats:
    """Half of them from what was evaluated, if there is so much, the others from all over the space."""
    evaluated, space = np.unique(evaluated, axis=0), np.unique(space, axis=0)
    few = rng.permutation(len(evaluated))[: max(MOST_POINTS // 2, MOST_POINTS - len(space))]
    rest = rng.permutation(len(space))[: MOST_POINTS - len(few)]
    return np.asarray(np.unique(np.vstack([evaluated[few], space[rest]]), axis=0))


def _nystrom(
    signal: float, lengths: Floats, level: float, points: Floats, lower: Floats, x: Floats, noise: float
) -> tuple[Floats, Floats]:
    """A campaign's points by the representatives: interpolation [n, m], and variance that it misses, [n]."""
    cross = signal * matern(points / lengths, x / lengths) + level
    half = scipy.linalg.solve_triangular(lower, cross, lower=True)
    missed = np.maximum(signal + level - np.einsum("ij,ij->j", half, half), 0.0)
    return scipy.linalg.solve_triangular(lower, half, lower=True, trans="T").T, missed + noise + 1e-4


def _step(
    projections: Sequence[tuple[Floats, Floats]],
    zs: Sequence[Floats],
    prior: Floats,
    mean: Floats,
    covariance: Floats,
) -> tuple[Floats, Floats]:
    """One step of expectation maximization."""
    count = len(zs)
    means, spread = np.empty((count, len(mean))), np.zeros_like(covariance)
    for i, ((weights, missed), z) in enumerate(zip(projections, zs, strict=True)):
        cross = covariance @ weights.T
        lower = factor(weights @ cross + np.diag(missed))
        half = scipy.linalg.solve_triangular(lower, np.c_[cross.T, z - weights @ mean], lower=True)
        means[i] = mean + half[:, :-1].T @ half[:, -1]
        spread -= half[:, :-1].T @ half[:, :-1]
    spread += count * covariance
    new = means.sum(0) / (count + _MEAN)
    away = means - new
    total = _CAMPAIGNS * prior + spread + away.T @ away + _MEAN * np.outer(new, new)
    return new, total / (_CAMPAIGNS + count)
