"""A small Gaussian process for Bayesian optimisation: Matern 5/2, a length scale for each input.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006): prediction by algorithm 2.1. Priors of the
hyperparameters after Hvarfner, Hellsten and Nardi (ICML 2024, arXiv:2402.02229), whose length scales grow with the
square root of the number of inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray

from rlctl.surrogates.blas_threads import on_one_thread
from rlctl.surrogates.posterior_mode import JITTER, Prior, posterior_mode
from rlctl.surrogates.smooth_field import SmoothField

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
"""Values [n] at inputs [n, inputs]."""

MOST_TUNED = 150
"""Points that hyperparameters are chosen by at most; each step costs their third power."""

_FEW = 8
"""Inputs of a drawn function for which no thread is started."""

_BOUNDS = {"length": (-4.0, 6.0), "signal": (-5.0, 5.0), "noise": (-16.0, 1.0)}


class GaussianProcess:
    """Gaussian process over inputs in the unit cube; outputs are standardized by the caller.

    Args:
        groups: number of the length scale of each input, from 0 on; inputs that share one, such as those of a
            categorical parameter, have the same number.
        noisy: whether repeated evaluations differ.
    """

    def __init__(self, groups: NDArray[np.int64], noisy: bool = True) -> None:
        self._groups = np.asarray(groups)
        self._scales = int(self._groups.max(initial=-1)) + 1
        d = max(1, self._scales)
        low, high = zip(*[_BOUNDS["length"]] * self._scales, _BOUNDS["signal"], _BOUNDS["noise"], strict=True)
        self._prior = Prior(
            np.r_[np.full(self._scales, math.sqrt(2.0) + 0.5 * math.log(d)), 0.0, -4.0 if noisy else -12.0],
            np.r_[np.full(self._scales, math.sqrt(3.0)), 1.0, 1.0],
            np.array(low),
            np.array(high),
        )
        self.parameters: Floats = self._prior.mean.copy()
        """Logarithms of length scales, signal variance and noise variance."""
        self._x: Floats = np.zeros((0, len(self._groups)))
        self._y: Floats = np.zeros(0)
        self._lower: Floats = np.zeros((0, 0))
        self._weights: Floats = np.zeros(0)

    @property
    def count(self) -> int:
        """Number of points that predictions rest on."""
        return len(self._y)

    @property
    def outputs(self) -> Floats:
        """Those of the points, [n]."""
        return self._y

    @property
    def noise(self) -> float:
        """Standard deviation of the noise."""
        return math.exp(0.5 * float(self.parameters[-1]))

    @on_one_thread
    def similarity(self, x: Floats) -> Floats:
        """Correlation, from 0 to 1, of inputs [m, inputs] with the points, [n, m]."""
        return self._covariance(self._x, x) / math.exp(self.parameters[-2])

    @on_one_thread
    def fit(self, x: Floats, y: Floats, optimize: bool = True) -> None:
        """Condition on points, with hyperparameters of the greatest posterior density, or the present ones.

        Args:
            x: [n, inputs], in the unit cube.
            y: [n], standardized.
        """
        self._x, self._y = x, y
        if optimize and len(y) > 1:
            some = slice(None) if len(y) <= MOST_TUNED else np.linspace(0, len(y) - 1, MOST_TUNED).astype(int)
            squares = _squares(x[some], self._groups, self._scales)
            self.parameters = posterior_mode(self.parameters, squares, y[some], self._prior)
        self._lower = _cholesky(self._covariance(x, x) + self._nugget() * np.eye(len(y)))
        self._weights = _solve(self._lower, y)

    @on_one_thread
    def believing(self, x: Floats) -> GaussianProcess:
        """The same, as if points [p, inputs] had been evaluated, each with the predicted mean: less is uncertain there.

        Parallel evaluations spread this way (Ginsbourger, Le Riche and Carraro 2010, "kriging believer").
        """
        more = GaussianProcess.__new__(GaussianProcess)
        more.__dict__.update(self.__dict__)
        cross = self._covariance(self._x, x)
        half = _forward(self._lower, cross) if self.count else cross
        own = self._covariance(x, x) + self._nugget() * np.eye(len(x))
        n, total = self.count, self.count + len(x)
        more._lower = np.zeros((total, total))
        more._lower[:n, :n], more._lower[n:, :n] = self._lower, half.T
        more._lower[n:, n:] = _cholesky(own - half.T @ half)
        more._x = np.vstack([self._x, x])
        more._y = np.append(self._y, self.predict(x)[0])
        more._weights = _solve(more._lower, more._y)
        return more

    @on_one_thread
    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, without noise, [m] each, at inputs [m, inputs]."""
        signal = math.exp(self.parameters[-2])
        if not self.count:
            return np.zeros(len(x)), np.full(len(x), math.sqrt(signal))
        cross = self._covariance(x, self._x)
        mean = cross @ self._weights
        half = _forward(self._lower, cross.T, overwrite=True).T
        return mean, np.sqrt(np.maximum(signal - np.einsum("ij,ij->i", half, half), JITTER))

    @on_one_thread
    def sample(self, x: Floats, rng: np.random.Generator) -> Floats:
        """A function drawn from the posterior, at inputs [m, inputs]: for Thompson sampling."""
        covariance, mean = self._covariance(x, x), np.zeros(len(x))
        if self.count:
            cross = self._covariance(self._x, x)
            half = _forward(self._lower, cross)
            covariance, mean = covariance - half.T @ half, cross.T @ self._weights
        return mean + _cholesky(covariance + 1e-6 * np.eye(len(x))) @ rng.standard_normal(len(x))

    @on_one_thread
    def draw(self, rng: np.random.Generator, waves: int = 256) -> Function:
        """A function drawn from the posterior, which can be asked anywhere, any number of times.

        By Matheron's rule (Wilson et al. 2020, arXiv:2002.09309, equation 9): a function of the prior, corrected by
        what it misses at the points.
        """
        prior = SmoothField.draw(np.exp(-self.parameters[: self._scales])[self._groups], rng, waves)
        height = math.exp(0.5 * self.parameters[-2])
        if not self.count:
            return lambda x: height * prior(x)
        missed = self._y - height * prior(self._x) - math.sqrt(self._nugget()) * rng.standard_normal(self.count)
        weights = _solve(self._lower, missed)

        def function(x: Floats) -> Floats:
            return np.asarray(height * prior(x) + self._covariance(x, self._x) @ weights)

        # For a few inputs, limiting threads takes longer than the function, and no library starts any.
        limited = on_one_thread(function)
        return lambda x: function(x) if len(x) < _FEW else limited(x)

    @on_one_thread
    def left_out(self) -> tuple[Floats, Floats]:
        """For each point, mean and standard deviation, with noise, that the others predict, [n] each.

        Rasmussen and Williams 2006, equation 5.12.
        """
        precision = np.diag(np.asarray(scipy.linalg.lapack.dpotri(self._lower, lower=1)[0]))
        return self._y - self._weights / precision, np.sqrt(1.0 / precision)

    @on_one_thread
    def correlation(self, a: Floats, b: Floats) -> float:
        """Posterior correlation of the function at two inputs, [inputs] each."""
        x = np.stack([a, b])
        covariance = self._covariance(x, x)
        if self.count:
            half = _forward(self._lower, self._covariance(self._x, x))
            covariance = covariance - half.T @ half
        variances = np.maximum(np.diag(covariance), JITTER)
        return float(covariance[0, 1] / math.sqrt(variances[0] * variances[1]))

    def _nugget(self) -> float:
        return math.exp(self.parameters[-1]) + JITTER

    def _covariance(self, a: Floats, b: Floats) -> Floats:
        scale = math.sqrt(5.0) * np.exp(-self.parameters[: self._scales])[self._groups]
        a, b = a * scale, b * scale
        square = a @ b.T
        square *= -2.0
        square += np.einsum("ij,ij->i", a, a)[:, None]
        square += np.einsum("ij,ij->i", b, b)
        np.maximum(square, 0.0, out=square)
        # Matern 5/2: (1 + r + r^2 / 3) exp(-r), in place, since there may be many candidates.
        r = np.sqrt(square)
        square *= 1.0 / 3.0
        square += r
        square += 1.0
        np.negative(r, out=r)
        square *= np.exp(r, out=r)
        square *= math.exp(self.parameters[-2])
        return square


def _squares(x: Floats, groups: NDArray[np.int64], scales: int) -> Floats:
    """Squared distances along each length scale, [scales, n, n]."""
    square = (x.T[:, :, None] - x.T[:, None, :]) ** 2
    if len(groups) == scales:
        return np.asarray(square[np.argsort(groups)])
    result = np.zeros((scales, len(x), len(x)))
    np.add.at(result, groups, square)
    return result


def _cholesky(matrix: Floats) -> Floats:
    """Lower factor; points that nearly coincide get more jitter."""
    for more in (0.0, 1e-6, 1e-4):
        lower, failed = scipy.linalg.lapack.dpotrf(
            matrix + more * np.eye(len(matrix)) if more else matrix, lower=1, clean=1
        )
        if not failed:
            return np.asarray(lower)
    raise np.linalg.LinAlgError("the covariance is not positive definite")


def _forward(lower: Floats, right: Floats, overwrite: bool = False) -> Floats:
    """Solve L z = right, in the place of ``right`` if it may be overwritten and lies column by column."""
    return np.asarray(scipy.linalg.lapack.dtrtrs(lower, right, lower=1, overwrite_b=int(overwrite))[0])


def _solve(lower: Floats, right: Floats) -> Floats:
    """Solve L L^T z = right."""
    return np.asarray(scipy.linalg.lapack.dpotrs(lower, right, lower=1)[0])
