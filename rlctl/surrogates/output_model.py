"""A Gaussian process over one output of a program, whatever its scale and skewness."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from rlctl.surrogates.gaussian_process import Function, GaussianProcess

Floats = NDArray[np.float64]

MOST = 300
"""Points that a model rests on at most: the best quarter, and others at random."""

POWERS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Of the transformation; 1 leaves values as they are."""

_POWERS = np.array(POWERS)[:, None]
_FEWEST_TO_WARP = 8


class OutputModel:
    """Predicts an output from features, in warped units: Yeo and Johnson's transformation, then mean 0, deviation 1.

    Args:
        groups: see ``GaussianProcess``.
        noisy: likewise.
        warp: whether skewed values are transformed (Yeo and Johnson 2000, doi:10.1093/biomet/87.4.954); it rises, so
            that order, improvements and probabilities keep their meaning.
    """

    def __init__(self, groups: NDArray[np.int64], noisy: bool = True, warp: bool = True) -> None:
        self._process = GaussianProcess(groups, noisy)
        self._warp = warp
        self._power = 1.0
        self._centre, self._spread, self._mean, self._deviation = 0.0, 1.0, 0.0, 1.0

    def tune(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """Choose hyperparameters for points, beginning from the present ones.

        Args:
            x: features, [n, features].
            y: outputs, [n].
        """
        self._scale(y)
        x, y = chosen_points(x, y, rng)
        self._process.fit(x, self.warped(y))

    def fit(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """Learn from points, with the present hyperparameters."""
        self._scale(y)
        x, y = chosen_points(x, y, rng)
        self._process.fit(x, self.warped(y), optimize=False)

    def believing(self, x: Floats) -> OutputModel:
        """The same, as if these points had been evaluated; see ``GaussianProcess.believing``."""
        more = copy.copy(self)
        more._process = self._process.believing(x)
        return more

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation at features [m, features], in warped units."""
        return self._process.predict(x)

    def sample(self, x: Floats, rng: np.random.Generator) -> Floats:
        """A function drawn from the posterior, in warped units."""
        return self._process.sample(x, rng)

    def draw(self, rng: np.random.Generator) -> Function:
        """Likewise, one that can be asked anywhere; see ``GaussianProcess.draw``."""
        return self._process.draw(rng)

    def left_out(self) -> tuple[Floats, Floats]:
        """What the other points predict for each, in warped units; see ``GaussianProcess.left_out``."""
        return self._process.left_out()

    @property
    def points(self) -> Floats:
        """The outputs that the model rests on, in warped units, [n]."""
        return self._process.outputs

    @property
    def parameters(self) -> Floats:
        """Hyperparameters; see ``GaussianProcess.parameters``."""
        return self._process.parameters

    @parameters.setter
    def parameters(self, values: Floats) -> None:
        self._process.parameters = np.array(values, float)

    def similarity(self, x: Floats) -> Floats:
        """See ``GaussianProcess.similarity``."""
        return self._process.similarity(x)

    def correlation(self, a: Floats, b: Floats) -> float:
        """See ``GaussianProcess.correlation``."""
        return self._process.correlation(a, b)

    @property
    def noise(self) -> float:
        """Standard deviation of the noise, in warped units."""
        return self._process.noise

    def warped(self, y: Floats | float) -> Floats:
        """Outputs in warped units."""
        scaled = (np.asarray(y, float) - self._centre) / self._spread
        if self._power != 1.0:
            scaled = yeo_johnson(scaled, self._power)
        result: Floats = (scaled - self._mean) / self._deviation
        return result

    @property
    def unit(self) -> float:
        """An output's change in a warped unit, where no skewness is transformed."""
        return self._spread * self._deviation

    def unwarped(self, z: Floats) -> Floats:
        """Outputs of warped units."""
        scaled = self._mean + self._deviation * np.asarray(z, float)
        if self._power != 1.0:
            scaled = inverse_yeo_johnson(scaled, self._power)
        result: Floats = self._centre + self._spread * scaled
        return result

    def _scale(self, y: Floats) -> None:
        """Choose the transformation: robust location and scale, power, then mean and deviation."""
        self._power, self._mean, self._deviation = 1.0, 0.0, 1.0
        low, self._centre, high = _quartiles(y)
        self._spread = high - low or float(np.std(y)) or 1.0
        if self._warp and len(y) >= _FEWEST_TO_WARP and np.ptp(y) > 0.0:
            self._power = POWERS[int(np.argmax(_log_likelihoods((y - self._centre) / self._spread)))]
        warped = self.warped(y)
        self._mean, self._deviation = float(warped.mean()), float(warped.std()) or 1.0


def _quartiles(y: Floats) -> tuple[float, float, float]:
    """As ``np.quantile`` interpolates them, which takes far longer for a few values."""
    ordered, last = np.sort(y), len(y) - 1
    places = (0.25 * last, 0.5 * last, 0.75 * last)
    low, middle, high = (
        float(ordered[int(at)] + (at - int(at)) * (ordered[min(int(at) + 1, last)] - ordered[int(at)])) for at in places
    )
    return low, middle, high


def chosen_points(x: Floats, y: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The points that a model rests on, features and outputs."""
    if len(y) <= MOST:
        return x, y
    order = np.argsort(y, kind="stable")
    kept = np.r_[order[: MOST // 4], rng.choice(order[MOST // 4 :], MOST - MOST // 4, replace=False)]
    return x[kept], y[kept]


def yeo_johnson(y: Floats, power: float) -> Floats:
    """Transformation of Yeo and Johnson, equation 2.1.

    >>> yeo_johnson(np.array([-1.0, 0.0, 1.0]), 1.0).tolist()
    [-1.0, 0.0, 1.0]
    """
    size, other = np.log1p(np.abs(y)), 2.0 - power
    above = size if power == 0.0 else np.expm1(power * size) / power
    below = size if other == 0.0 else np.expm1(other * size) / other
    result: Floats = np.where(y >= 0.0, above, -below)
    return result


def inverse_yeo_johnson(z: Floats, power: float) -> Floats:
    """The inverse of ``yeo_johnson``; what no value is transformed to becomes one that is far away.

    >>> np.round(inverse_yeo_johnson(yeo_johnson(np.array([-3.0, 0.5, 2.0]), -0.5), -0.5), 9).tolist()
    [-3.0, 0.5, 2.0]
    """
    size, other = np.abs(z), 2.0 - power
    above = np.expm1(size) if power == 0.0 else np.maximum(1.0 + power * size, 1e-3) ** (1.0 / power) - 1.0
    below = np.expm1(size) if other == 0.0 else np.maximum(1.0 + other * size, 1e-3) ** (1.0 / other) - 1.0
    result: Floats = np.where(z >= 0.0, above, -below)
    return result


def _log_likelihoods(y: Floats) -> Floats:
    """Of each of ``POWERS``, equation 3.1, without constants."""
    below = y < 0.0
    size = np.log1p(np.abs(y))
    powers = np.where(below, 2.0 - _POWERS, _POWERS)
    with np.errstate(divide="ignore", invalid="ignore"):
        warped = np.where(powers == 0.0, size, np.expm1(powers * size) / powers)
    warped[:, below] *= -1.0
    jacobian = (_POWERS[:, 0] - 1.0) * float(size.sum() - 2.0 * size[below].sum())
    return np.asarray(-0.5 * len(y) * np.log(np.maximum(warped.var(axis=1), 1e-300)) + jacobian)
