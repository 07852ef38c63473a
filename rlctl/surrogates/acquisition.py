"""Acquisition functions for minimization: what it is worth to evaluate a point, from a prediction of its loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

Floats = NDArray[np.float64]


def log_expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Logarithm of the expected improvement over the best loss so far (Jones, Schonlau and Welch 1998).

    The logarithm orders also points whose improvement underflows (Ament et al. 2023, arXiv:2310.20708, equation 9).
    """
    z = (best - mean) / deviation
    density = -0.5 * z * z - 0.5 * np.log(2.0 * np.pi)
    # h(z) = phi(z) + z Phi(z); for z << 0 it is about phi(z) / z^2.
    with np.errstate(divide="ignore", invalid="ignore"):
        direct = np.log(np.exp(density) + z * ndtr(z))
    tail = density - 2.0 * np.log(np.maximum(-z, 1.0))
    result: Floats = np.where(z > -6.0, direct, tail) + np.log(deviation)
    return result


def log_probability_below(mean: Floats, deviation: Floats, target: float) -> Floats:
    """Logarithm of the probability that the loss is at most ``target`` (Kushner 1964)."""
    result: Floats = log_ndtr((target - mean) / deviation)
    return result


def lower_confidence_bound(mean: Floats, deviation: Floats, beta: float) -> Floats:
    """``beta`` deviations below the mean (Srinivas et al. 2010, arXiv:0912.3995, algorithm 1, for minimization)."""
    return mean - beta * deviation
