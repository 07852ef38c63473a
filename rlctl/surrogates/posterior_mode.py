"""Hyperparameters of a Gaussian process with the greatest posterior density, by Fisher scoring.

Each step solves with the expected curvature of the marginal likelihood (Fisher's information; Rasmussen and Williams
2006, equation 5.9, for the gradient), damped where a step does not improve (Levenberg 1944, Marquardt 1963). From the
parameters of a few points fewer on, two or three steps are enough, where L-BFGS takes fifteen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

JITTER = 1e-8
"""Added to the noise variance, so that the covariance can be factorized."""

_MOST = 30
_ENOUGH = 5e-3
"""Expected gain of the logarithm of the density by a further step, below which there is none."""

_LONGEST = 2.0
"""The largest change of the logarithm of a hyperparameter in a step."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal distributions of the logarithms of length scales, signal variance and noise variance, within bounds.

    Attributes:
        mean, deviation, low, high: [length scales + 2].
    """

    mean: Floats
    deviation: Floats
    low: Floats
    high: Floats


def posterior_mode(start: Floats, squares: Floats, y: Floats, prior: Prior) -> Floats:
    """Logarithms of the hyperparameters of a Matern 5/2 process, [length scales + 2].

    Args:
        start: logarithms to begin with.
        squares: squared distances of the points along each length scale, [length scales, n, n].
        y: outputs, [n].
    """
    at = np.clip(start, prior.low, prior.high)
    loss, gradient, curvature = negative_log_density(at, squares, y, prior, expected=True)
    shortened = 1.0
    for _ in range(_MOST):
        stuck = ((at <= prior.low) & (gradient > 0.0)) | ((at >= prior.high) & (gradient < 0.0))
        free = np.flatnonzero(~stuck)
        step = np.zeros_like(at)
        step[free] = -np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        step *= min(1.0, _LONGEST / max(float(np.abs(step).max()), 1e-300))
        step = np.clip(at + shortened * step, prior.low, prior.high) - at
        if -float(gradient @ step) < _ENOUGH * shortened:
            break
        new_loss, new_gradient, _ = negative_log_density(at + step, squares, y, prior)
        if math.isfinite(new_loss):
            curvature = _updated(curvature, step, new_gradient - gradient)
        if new_loss < loss:
            at, loss, gradient, shortened = at + step, new_loss, new_gradient, 1.0
        else:
            shortened *= 0.5
    return at


def _updated(curvature: Floats, step: Floats, change: Floats) -> Floats:
    """Curvature with which the gradient changes as it did along a step (Broyden, Fletcher, Goldfarb and Shanno).

    A change that would not keep it positive is damped (Powell 1978; Nocedal and Wright 2006, equation 18.15).
    """
    along = curvature @ step
    known, seen = float(step @ along), float(step @ change)
    if seen < 0.2 * known:
        share = 0.8 * known / (known - seen)
        change = share * change + (1.0 - share) * along
        seen = 0.2 * known
    return np.asarray(curvature - np.outer(along, along) / known + np.outer(change, change) / seen)


def negative_log_density(
    at: Floats, squares: Floats, y: Floats, prior: Prior, expected: bool = False
) -> tuple[float, Floats, Floats]:
    """Negative logarithm of the posterior density of the hyperparameters, without constants, and its gradient.

    Args:
        at: see ``posterior_mode``, as the others.
        expected: whether the expected Hessian is asked for too.

    Returns:
        infinity, if the covariance cannot be factorized.
    """
    n, scales, size = len(y), len(squares), len(at)
    signal, noise = math.exp(at[-2]), math.exp(at[-1])
    nugget = noise + JITTER
    scaled = squares * np.exp(-2.0 * at[:scales])[:, None, None]
    square = scaled.sum(0)
    root = np.sqrt(5.0 * square)
    decay = signal * np.exp(-root)
    covariance = (1.0 + root + (5.0 / 3.0) * square) * decay
    covariance.flat[:: n + 1] += nugget
    lower, failed = scipy.linalg.lapack.dpotrf(covariance, lower=1, clean=1)
    if failed:
        return math.inf, np.zeros(size), np.eye(size)
    weights = scipy.linalg.lapack.dpotrs(lower, y, lower=1)[0]
    inverse = np.asarray(scipy.linalg.lapack.dpotri(lower, lower=1)[0])
    inverse = inverse + inverse.T
    inverse.flat[:: n + 1] *= 0.5
    trace, fit, length = float(np.trace(inverse)), float(y @ weights), float(weights @ weights)
    changes = scaled
    changes *= (5.0 / 3.0) * (1.0 + root) * decay  # of the covariance with the length scales
    z = (at - prior.mean) / prior.deviation
    gradient = z / prior.deviation
    difference = (inverse - np.outer(weights, weights)).ravel()
    gradient[:scales] += 0.5 * (changes.reshape(scales, n * n) @ difference)
    gradient[-2] += 0.5 * (n - nugget * trace - fit + nugget * length)
    gradient[-1] += 0.5 * noise * (trace - length)
    loss = 0.5 * fit + float(np.log(lower.flat[:: n + 1]).sum()) + 0.5 * float(z @ z)
    if not expected:
        return loss, gradient, np.zeros((0, 0))
    products = np.empty((size, n, n))
    np.matmul(changes.reshape(scales * n, n), inverse, out=products[:scales].reshape(scales * n, n))
    products[-2] = -nugget * inverse
    products[-2].flat[:: n + 1] += 1.0
    products[-1] = noise * inverse
    flat = products.reshape(size, n * n)
    information = 0.5 * (flat @ products.transpose(0, 2, 1).reshape(size, n * n).T)
    information.flat[:: size + 1] += prior.deviation**-2.0
    return loss, gradient, information
