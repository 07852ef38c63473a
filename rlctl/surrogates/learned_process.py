"""A Gaussian process whose mean and covariance were learned from earlier campaigns.

The covariance is a Matern 5/2 of a common kind, plus what functions of earlier campaigns have in common beyond it: a
few functions by which they differ most (Schwaighofer, Tresp and Yu, NIPS 2004, "Learning Gaussian process kernels via
hierarchical Bayes"), interpolated by the common kernel.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from rlctl.surrogates.blas_threads import on_one_thread
from rlctl.surrogates.pooled_scale import PooledScale

Floats = NDArray[np.float64]

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-6
_MOST_TUNED = 120
"""Points that the hyperparameters are chosen by at most."""

ADAPTED = ("amplitude", "residual", "noise")
"""Logarithms that a new campaign adapts: of what functions are multiplied by, of the variance of what was not learned,
as a share of ``signal``, and of the variance of noise."""


@dataclass(frozen=True)
class LearnedProcess:
    """What functions of a kind of campaign look like, in pooled units.

    Attributes:
        scale: of the outputs.
        lengths: of the common kernel, [features].
        signal, level: variances of the common kernel, and of a constant that differs between campaigns.
        points: features by which mean and covariance are interpolated, [m, features].
        weights: of the mean, [m].
        projection: [m, k] gives with the kernel's values the k functions by which campaigns differ.
        variances: of these functions beyond what the common kernel allows for, [k].
        usual, deviations: of ``ADAPTED``, over campaigns.
    """

    scale: PooledScale
    lengths: Floats
    signal: float
    level: float
    points: Floats
    weights: Floats
    projection: Floats
    variances: Floats
    usual: Floats
    deviations: Floats

    def common(self, a: Floats, b: Floats) -> Floats:
        """The common kernel without level, [a, b]."""
        return self.signal * matern(a / self.lengths, b / self.lengths)

    def basis(self, x: Floats) -> Floats:
        """The common kernel with level, of inputs [n, features] and ``points``, [n, m]."""
        return self.common(x, self.points) + self.level

    def description(self) -> dict[str, Any]:
        """All of it that is no array, for JSON."""
        return {"scale": self.scale.to_json(), "signal": self.signal, "level": self.level}

    def arrays(self) -> dict[str, Floats]:
        """The rest."""
        names = ("lengths", "points", "weights", "projection", "variances", "usual", "deviations")
        return {name: self.__dict__[name] for name in names}

    @classmethod
    def restored(cls, description: Mapping[str, Any], arrays: Mapping[str, Floats]) -> LearnedProcess:
        """The inverse of ``description`` and ``arrays``."""
        scale = PooledScale(**description["scale"])
        return cls(scale, signal=float(description["signal"]), level=float(description["level"]), **arrays)


class ConditionedProcess:
    """A learned process with results of the present campaign; outputs are in pooled units.

    Args:
        learned: its prior.
    """

    def __init__(self, learned: LearnedProcess) -> None:
        self.learned = learned
        self.adapted: Floats = learned.usual.copy()
        self._own: Floats = learned.lengths
        self._x: Floats = np.zeros((0, learned.points.shape[1]))
        self._z: Floats = np.zeros(0)
        self._seen = self._parts(self._x)
        self._lower: Floats = np.zeros((0, 0))
        self._weights: Floats = np.zeros(0)

    @property
    def noise(self) -> float:
        """Standard deviation of the noise."""
        return math.exp(0.5 * float(self.adapted[2]))

    @on_one_thread
    def fit(self, x: Floats, z: Floats, own: Floats, optimize: bool = True) -> None:
        """Condition on points.

        Args:
            x: [n, features].
            z: outputs, [n].
            own: length scales of what was not learned, [features].
            optimize: whether hyperparameters are adapted to the points first.
        """
        self._x, self._z, self._own, self._seen = x, z, own, self._parts(x)
        if optimize and len(z):
            self._adapt()
        self._condition()

    @on_one_thread
    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, without noise, [n] each, at inputs [n, features]."""
        parts = self._parts(x)
        mean, variance = self._mean(parts), self._variance(x, parts)
        if len(self._z):
            cross = self._covariance(self._x, self._seen, x, parts)
            half = scipy.linalg.lapack.dtrtrs(self._lower, cross, lower=1)[0]
            mean, variance = mean + cross.T @ self._weights, variance - np.einsum("ij,ij->j", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-8))

    @on_one_thread
    def believing(self, x: Floats) -> ConditionedProcess:
        """The same, as if points had been evaluated, each with the predicted mean."""
        more = copy.copy(self)
        z = self.predict(x)[0]
        more._x, more._z = np.vstack([self._x, x]), np.append(self._z, z)
        more._seen = more._parts(more._x)
        more._condition()
        return more

    @on_one_thread
    def joint(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean [n] and covariance [n, n] of the function at inputs [n, features]."""
        parts = self._parts(x)
        mean, covariance = self._mean(parts), self._covariance(x, parts, x, parts)
        if len(self._z):
            cross = self._covariance(self._x, self._seen, x, parts)
            half = scipy.linalg.lapack.dtrtrs(self._lower, cross, lower=1)[0]
            mean, covariance = mean + cross.T @ self._weights, covariance - half.T @ half
        return mean, covariance

    @on_one_thread
    def left_out(self) -> tuple[Floats, Floats]:
        """For each point, mean and standard deviation, with noise, that the others predict, [n] each."""
        precision = np.diag(np.asarray(scipy.linalg.lapack.dpotri(self._lower, lower=1)[0]))
        return self._z - self._weights / precision, np.sqrt(1.0 / precision)

    def _parts(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean of the learned functions [n], and those by which campaigns differ [n, k]."""
        basis = self.learned.basis(x)
        return basis @ self.learned.weights, basis @ self.learned.projection

    def _mean(self, parts: tuple[Floats, Floats]) -> Floats:
        return np.asarray(math.exp(self.adapted[0]) * parts[0])

    def _covariance(
        self, a: Floats, a_parts: tuple[Floats, Floats], b: Floats, b_parts: tuple[Floats, Floats]
    ) -> Floats:
        return self._weighted(self.adapted, *self._kernels(a, a_parts, b, b_parts))

    def _kernels(
        self, a: Floats, a_parts: tuple[Floats, Floats], b: Floats, b_parts: tuple[Floats, Floats]
    ) -> tuple[Floats, Floats]:
        """What was learned, and what was not."""
        learned = self.learned.common(a, b) + (a_parts[1] * self.learned.variances) @ b_parts[1].T + self.learned.level
        return learned, self.learned.signal * matern(a / self._own, b / self._own)

    def _weighted(self, adapted: Floats, learned: Floats, own: Floats) -> Floats:
        return np.asarray(math.exp(2.0 * adapted[0]) * learned + math.exp(adapted[1]) * own)

    def _variance(self, x: Floats, parts: tuple[Floats, Floats]) -> Floats:
        of = self.learned
        learned = of.signal + of.level + (parts[1] * parts[1]) @ of.variances
        return self._weighted(self.adapted, learned, np.full(len(x), of.signal))

    def _condition(self) -> None:
        n = len(self._z)
        covariance = self._covariance(self._x, self._seen, self._x, self._seen)
        self._lower = factor(covariance + math.exp(self.adapted[2]) * np.eye(n))
        missed = self._z - self._mean(self._seen)
        self._weights = np.asarray(scipy.linalg.lapack.dpotrs(self._lower, missed, lower=1)[0]) if n else missed

    def _adapt(self) -> None:
        """Choose hyperparameters of the greatest posterior density."""
        usual, deviations = self.learned.usual, self.learned.deviations
        some = np.unique(np.linspace(0, len(self._z) - 1, _MOST_TUNED).astype(int))
        x, z = self._x[some], self._z[some]
        parts = (self._seen[0][some], self._seen[1][some])
        kernels = self._kernels(x, parts, x, parts)

        def loss(adapted: Floats) -> float:
            covariance = self._weighted(adapted, *kernels)
            try:
                lower = factor(covariance + math.exp(adapted[2]) * np.eye(len(z)))
            except np.linalg.LinAlgError:
                return 1e25
            half = scipy.linalg.lapack.dtrtrs(lower, z - math.exp(adapted[0]) * parts[0], lower=1)[0]
            prior = (adapted - usual) / deviations
            return 0.5 * float(half @ half) + float(np.log(np.diag(lower)).sum()) + 0.5 * float(prior @ prior)

        bounds = list(zip(usual - 4.0 * deviations, usual + 4.0 * deviations, strict=True))
        found = scipy.optimize.minimize(
            loss, self.adapted, method="L-BFGS-B", bounds=bounds, options={"maxiter": 12, "maxfun": 80}
        )
        self.adapted = np.asarray(found.x)


def matern(a: Floats, b: Floats) -> Floats:
    """Matern 5/2 of inputs in units of their length scales, [a, b]."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2.0 * a @ b.T
    r = _SQRT5 * np.sqrt(np.maximum(square, 0.0))
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))


def factor(matrix: Floats) -> Floats:
    """Lower Cholesky factor; points that nearly coincide get more jitter.

    Raises:
        numpy.linalg.LinAlgError: the matrix is far from positive definite.
    """
    for more in (_JITTER, 1e-4, 1e-2):
        lower, failed = scipy.linalg.lapack.dpotrf(matrix + more * np.eye(len(matrix)), lower=1, clean=1)
        if not failed:
            return np.asarray(lower)
    raise np.linalg.LinAlgError("the covariance is not positive definite")
