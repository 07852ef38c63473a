"""A model of one output that begins with what earlier campaigns say, and notices when they mislead.

It is two models: a learned process, and the one of a campaign without a past. Both are fitted to the present results and
averaged by how well each predicts results that were left out of it (pseudo-BMA, Yao, Vehtari, Simpson and Gelman 2018,
doi:10.1214/17-BA1091, section 3.4).
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr

from rlctl.surrogates.learned_process import ConditionedProcess, LearnedProcess
from rlctl.surrogates.output_model import OutputModel, chosen_points

Floats = NDArray[np.float64]

FEWEST = 3
"""Results below which nothing speaks against the prior."""

_FITTED = 2.0
"""What the model without a past gains, in its evidence, from level and spread, which it takes from the results."""


class InformedOutput:
    """Predicts an output from features, in the units of the model without a past; see ``OutputModel``.

    Attributes:
        trust: weight of the learned process, from 0 to 1.

    Args:
        learned: what earlier campaigns say.
        plain: the model without a past.
        binary: whether outputs are 1 and -1, of which only the sign matters.
    """

    def __init__(self, learned: LearnedProcess, plain: OutputModel, binary: bool = False) -> None:
        self._informed, self._plain, self._binary = ConditionedProcess(learned), plain, binary
        self.trust = 1.0

    def tune(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """See ``OutputModel.tune``."""
        self._fit(x, y, rng, optimize=True)

    def fit(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """See ``OutputModel.fit``."""
        self._fit(x, y, rng, optimize=False)

    def _fit(self, x: Floats, y: Floats, rng: np.random.Generator, optimize: bool) -> None:
        if not len(y):
            return
        x, y = chosen_points(x, y, rng)
        (self._plain.tune if optimize else self._plain.fit)(x, y, rng)
        self._informed.fit(x, self._informed.learned.scale.warped(y), optimize)
        self.trust = self._trust(y) if len(y) >= FEWEST else 1.0

    def _trust(self, y: Floats) -> float:
        """Weight of the learned process, by the results that are left out of both models."""
        scale = self._informed.learned.scale
        learned = _log_density(self._informed.left_out(), scale.warped(y), float(scale.warped(0.0)), self._binary)
        plain = _log_density(self._plain.left_out(), self._plain.warped(y), float(self._plain.warped(0.0)), self._binary)
        gain = float(np.sum(learned - plain))
        if not self._binary:
            gain += float(np.sum(scale.log_slope(y) - self._log_slope(y)))
        return float(expit(_FITTED + gain))

    def _log_slope(self, y: Floats) -> Floats:
        """Logarithm of the derivative of the plain model's units, [n]."""
        step = 1e-4 * self._plain.unit
        rise = np.asarray(self._plain.warped(y + step)) - np.asarray(self._plain.warped(y - step))
        return np.asarray(np.log(np.maximum(rise, 1e-300) / (2.0 * step)))

    def believing(self, x: Floats) -> InformedOutput:
        """See ``OutputModel.believing``."""
        more = copy.copy(self)
        more._informed, more._plain = self._informed.believing(x), self._plain.believing(x)
        return more

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """See ``OutputModel.predict``: mean and deviation of the average of both."""
        learned_mean, learned_deviation = self._converted(*self._informed.predict(x))
        if self.trust > 0.999:
            return learned_mean, learned_deviation
        plain_mean, plain_deviation = self._plain.predict(x)
        mean = self.trust * learned_mean + (1.0 - self.trust) * plain_mean
        square = self.trust * (learned_deviation**2 + (learned_mean - mean) ** 2)
        square += (1.0 - self.trust) * (plain_deviation**2 + (plain_mean - mean) ** 2)
        return mean, np.sqrt(square)

    def _converted(self, mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
        """Median and half of the middle 68 % of what is normal in pooled units, in those of the plain model."""
        low, middle, high = (
            np.asarray(self._plain.warped(self._informed.learned.scale.unwarped(mean + sign * deviation)))
            for sign in (-1.0, 0.0, 1.0)
        )
        return middle, np.maximum(0.5 * (high - low), 1e-9)

    def sample(self, x: Floats, rng: np.random.Generator) -> Floats:
        """See ``OutputModel.sample``: from one of both, as likely as it is trusted."""
        if rng.random() >= self.trust:
            return self._plain.sample(x, rng)
        mean, covariance = self._informed.joint(x)
        values, vectors = np.linalg.eigh(covariance)
        drawn = mean + vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(len(x)))
        return np.asarray(self._plain.warped(self._informed.learned.scale.unwarped(drawn)))

    def correlation(self, a: Floats, b: Floats) -> float:
        """See ``OutputModel.correlation``."""
        covariance = self._informed.joint(np.stack([a, b]))[1]
        variances = np.maximum(np.diag(covariance), 1e-8)
        learned = float(covariance[0, 1] / math.sqrt(variances[0] * variances[1]))
        return self.trust * learned + (1.0 - self.trust) * self._plain.correlation(a, b)

    @property
    def noise(self) -> float:
        """See ``OutputModel.noise``."""
        mean, deviation = np.zeros(1), np.full(1, self._informed.noise)
        learned = float(self._converted(mean, deviation)[1][0])
        return math.sqrt(self.trust * learned**2 + (1.0 - self.trust) * self._plain.noise**2)

    @property
    def unit(self) -> float:
        """See ``OutputModel.unit``."""
        return self._plain.unit

    def warped(self, y: Floats | float) -> Floats:
        """See ``OutputModel.warped``."""
        return self._plain.warped(y)

    def unwarped(self, z: Floats) -> Floats:
        """See ``OutputModel.unwarped``."""
        return self._plain.unwarped(z)


def _log_density(predicted: tuple[Floats, Floats], z: Floats, zero: float, binary: bool) -> Floats:
    """Logarithm of the density of outputs, or of the probability of their signs, [n]."""
    mean, deviation = predicted
    if binary:
        return np.asarray(log_ndtr(np.sign(z - zero) * (mean - zero) / deviation))
    return np.asarray(-0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation))
