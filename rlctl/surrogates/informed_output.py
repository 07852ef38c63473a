"""A model of one output that begins with what earlier campaigns say, and notices when they mislead.

It is two models: a learned process, and the one of a campaign without a past. Both are fitted to the present results,
and the one that has predicted new results better is used: dynamic model selection with a forgetting factor (Raftery,
Karny and Ettler 2010, doi:10.1198/TECH.2009.08104, section 3).
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr

from rlctl.surrogates.learned_process import ConditionedProcess, LearnedProcess
from rlctl.surrogates.output_model import MOST, OutputModel, chosen_points

Floats = NDArray[np.float64]

FEWEST = 3
"""Results below which nothing speaks against the prior."""

_BEFORE = 2.0
"""Logarithm of the odds for the learned process before anything is known."""

_MEMORY, _MOST = 0.9, 3.0
"""What the evidence of earlier results is multiplied by for each new one, and how far a single one can count."""


class InformedOutput:
    """Predicts an output from features, in the units of the model without a past; see ``OutputModel``.

    Attributes:
        trust: probability of the learned process, from 0 to 1.

    Args:
        learned: what earlier campaigns say.
        plain: the model without a past.
        groups: length scales of the features, see ``GaussianProcess``.
        binary: whether outputs are 1 and -1, of which only the sign matters.
    """

    def __init__(
        self, learned: LearnedProcess, plain: OutputModel, groups: NDArray[np.int64], binary: bool = False
    ) -> None:
        self._informed, self._plain, self._groups, self._binary = ConditionedProcess(learned), plain, groups, binary
        self._judged, self._evidence = 0, _BEFORE

    @property
    def trust(self) -> float:
        """See the class."""
        return float(expit(self._evidence))

    @property
    def leads(self) -> bool:
        """Whether the learned process predicts, and not the model without a past."""
        return self._evidence > 0.0

    def tune(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """See ``OutputModel.tune``; results beyond those of the last time are predicted first, as evidence."""
        if self._judged < len(y) <= MOST:
            self._judge(x, y, rng)
        x, y = chosen_points(x, y, rng)
        self._plain.tune(x, y, rng)
        self._informed.fit(x, self._informed.learned.scale.warped(y), self._own)

    def fit(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """See ``OutputModel.fit``."""
        x, y = chosen_points(x, y, rng)
        self._plain.fit(x, y, rng)
        self._informed.fit(x, self._informed.learned.scale.warped(y), self._own, optimize=False)

    def _judge(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """Compare how well both predict the results that came since the last time."""
        known, self._judged = self._judged, len(y)
        if known < FEWEST:
            return
        self.fit(x[:known], y[:known], rng)
        new, scale = y[known:], self._informed.learned.scale
        learned_mean, learned_deviation = self._informed.predict(x[known:])
        plain_mean, plain_deviation = self._plain.predict(x[known:])
        learned_deviation = np.hypot(learned_deviation, self._informed.noise)
        plain_deviation = np.hypot(plain_deviation, self._plain.noise)
        if self._binary:
            learned = _log_sign(learned_mean - scale.warped(0.0), learned_deviation, new)
            plain = _log_sign(plain_mean - self._plain.warped(0.0), plain_deviation, new)
        else:
            learned = _log_density(scale.warped(new), learned_mean, learned_deviation) + scale.log_slope(new)
            plain = _log_density(self._plain.warped(new), plain_mean, plain_deviation) + self._log_slope(new)
        for gain in np.clip(learned - plain, -_MOST, _MOST):
            self._evidence = _MEMORY * self._evidence + float(gain)

    @property
    def _own(self) -> Floats:
        """Length scales of the model without a past, [features]."""
        return np.asarray(np.exp(self._plain.parameters[:-2])[self._groups])

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
        """See ``OutputModel.predict``."""
        return self._converted(*self._informed.predict(x)) if self.leads else self._plain.predict(x)

    def _converted(self, mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
        """Median and half of the middle 68 % of what is normal in pooled units, in those of the plain model."""
        low, middle, high = (
            np.asarray(self._plain.warped(self._informed.learned.scale.unwarped(mean + sign * deviation)))
            for sign in (-1.0, 0.0, 1.0)
        )
        return middle, np.maximum(0.5 * (high - low), 1e-9)

    def sample(self, x: Floats, rng: np.random.Generator) -> Floats:
        """See ``OutputModel.sample``."""
        if not self.leads:
            return self._plain.sample(x, rng)
        mean, covariance = self._informed.joint(x)
        values, vectors = np.linalg.eigh(covariance)
        drawn = mean + vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(len(x)))
        return np.asarray(self._plain.warped(self._informed.learned.scale.unwarped(drawn)))

    def correlation(self, a: Floats, b: Floats) -> float:
        """See ``OutputModel.correlation``."""
        if not self.leads:
            return self._plain.correlation(a, b)
        covariance = self._informed.joint(np.stack([a, b]))[1]
        variances = np.maximum(np.diag(covariance), 1e-8)
        return float(covariance[0, 1] / math.sqrt(variances[0] * variances[1]))

    @property
    def noise(self) -> float:
        """See ``OutputModel.noise``."""
        if not self.leads:
            return self._plain.noise
        return float(self._converted(np.zeros(1), np.full(1, self._informed.noise))[1][0])

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


def _log_density(z: Floats, mean: Floats, deviation: Floats) -> Floats:
    return np.asarray(-0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation))


def _log_sign(above: Floats, deviation: Floats, y: Floats) -> Floats:
    return np.asarray(log_ndtr(np.sign(y) * above / deviation))
