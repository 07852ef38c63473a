"""Models of one column of a table each: an outcome, a duration with its tail, and whether evaluations fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlctl.surrogates.output_model import OutputModel

Floats = NDArray[np.float64]
Levels = NDArray[np.int64]
Drawn = Callable[[Floats, Levels], Floats]
"""Values [n] at features [n, features] and levels [n]."""

MOST_ROWS = 300
"""Rows that a model rests on at most; others are left out at random."""

BEYOND = 1.0
"""Spreads by which a drawn value may lie beyond all that were recorded."""

OUTLIER = 4.0
"""Deviations, by the median, beyond which a duration belongs to the tail."""

_CHANCE = 400
_NINETY = 1.6448536269514722


@dataclass
class FittedOutput:
    """A Gaussian process over one output, after each level's median and spread were taken out.

    Attributes:
        model: of the levelled output.
        median, spread: of the levels, [levels] each.
        low, high: recorded extremes of the levelled output, in the model's units.
    """

    model: OutputModel
    median: Floats
    spread: Floats
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def fit(
        cls,
        groups: NDArray[np.int64],
        x: Floats,
        level: Levels,
        y: Floats,
        levels: int,
        *,
        warp: bool = True,
        scaled: bool = True,
        parameters: Floats | None = None,
    ) -> FittedOutput:
        """Fit to rows.

        Args:
            groups: length scales of the features; see ``GaussianProcess``.
            x: features, [n, features].
            level: of each row.
            y: the output, [n].
            levels: how many there are.
            warp: whether skewness is transformed.
            scaled: whether levels have a spread of their own.
            parameters: hyperparameters; None: they are chosen.
        """
        median, spread = np.full(levels, np.median(y)), np.ones(levels)
        for one in np.unique(level):
            own = y[level == one]
            median[one] = np.median(own)
            wide = float(np.ptp(np.quantile(own, [0.25, 0.75]))) or float(np.std(own))
            spread[one] = wide if scaled and levels > 1 and wide > 0.0 else 1.0
        flat = (y - median[level]) / spread[level]
        model, rng = OutputModel(groups, noisy=True, warp=warp), np.random.default_rng(0)
        if parameters is None:
            model.tune(x, flat, rng)
        else:
            model.parameters = parameters
            model.fit(x, flat, rng)
        z = model.warped(flat)
        reach = BEYOND * max(float(np.ptp(z)), 1e-9)
        return cls(model, median, spread, float(z.min()) - reach, float(z.max()) + reach)

    def quantiles(self, x: Floats, level: Levels, chances: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Floats:
        """Quantiles of what an evaluation gives, noise included, [chances, n]."""
        from scipy.special import ndtri

        mean, deviation = self.model.predict(x)
        wide = np.hypot(deviation, self.model.noise)
        return np.stack([self._output(mean + float(ndtri(chance)) * wide, level) for chance in chances])

    def draw(self, rng: np.random.Generator) -> Drawn:
        """A function drawn from the posterior, without noise."""
        function = self.model.draw(rng)
        return lambda x, level: self._output(function(x), level)

    def noisy(self, values: Floats, level: Levels, rng: np.random.Generator) -> Floats:
        """Values with noise as the program's own."""
        z = self.model.warped((values - self.median[level]) / self.spread[level])
        return self._output(z + self.model.noise * rng.standard_normal(len(z)), level)

    def _output(self, z: Floats, level: Levels) -> Floats:
        flat = self.model.unwarped(np.clip(z, self.low, self.high))
        return np.asarray(self.median[level] + self.spread[level] * flat)


@dataclass
class FittedDuration:
    """The logarithm of durations: a function of the inputs, and a residual that is drawn from those recorded.

    Attributes:
        output: the function; the tail is left out of it, lest single runs that hung bend it.
        kept: rows that the function rests on, [n].
        residuals: logarithms, recorded ones, the tail included.
        failed_after: likewise, of runs that failed, relative to the function; empty: none is known.
    """

    output: FittedOutput
    kept: NDArray[np.bool_]
    residuals: Floats
    failed_after: Floats

    @classmethod
    def fit(
        cls,
        groups: NDArray[np.int64],
        x: Floats,
        level: Levels,
        seconds: Floats,
        failed: NDArray[np.bool_],
        levels: int,
        known: tuple[Floats, NDArray[np.bool_]] | None = None,
    ) -> FittedDuration:
        """Fit to the durations of rows, [n]; those that failed say only how long failures take.

        Args:
            known: ``parameters`` and ``kept`` of an earlier fit to these rows; None: they are chosen.
        """
        log_s = np.log(seconds)

        def fitted(rows: NDArray[np.bool_]) -> FittedOutput:
            parameters = None if known is None else known[0]
            return FittedOutput.fit(
                groups, x[rows], level[rows], log_s[rows], levels, warp=False, scaled=False, parameters=parameters
            )

        if known is None:
            kept, output = ~failed, fitted(~failed)
            missed = _left_out_residuals(output)
            distance = np.abs(missed - np.median(missed))
            usual = max(float(np.median(distance)) / 0.6745, 1e-3)
            if (distance > OUTLIER * usual).any():
                kept[kept] = distance <= OUTLIER * usual
                output = fitted(kept)
        else:
            kept = known[1]
            output = fitted(kept)
        tail = ~failed & ~kept
        residuals = np.r_[_left_out_residuals(output), log_s[tail] - output.quantiles(x[tail], level[tail], (0.5,))[0]]
        after = log_s[failed] - output.quantiles(x[failed], level[failed], (0.5,))[0]
        return cls(output, kept, residuals, after)

    def quantiles(self, x: Floats, level: Levels, chances: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Floats:
        """Quantiles of the logarithm of seconds, [chances, n]."""
        rng = np.random.default_rng(0)
        mean, deviation = self.output.model.predict(x)
        unit = self.output.model.unit
        values = self.output.median[level] + self.output.model.unwarped(mean)
        chance = rng.standard_normal((_CHANCE, 1)) * (deviation * unit) + rng.choice(self.residuals, (_CHANCE, 1))
        return np.asarray(values + np.quantile(chance, chances, axis=0))


def _left_out_residuals(output: FittedOutput) -> Floats:
    """Residuals in the output's units, of the size of the noise and of the shape of what others predict wrongly."""
    mean, deviation = output.model.left_out()
    z = (output.model.points - mean) / deviation
    return np.asarray(z * max(output.model.noise, 1e-6) * output.model.unit)


@dataclass
class FittedFailure:
    """Whether evaluations fail: a regression on 1 and -1, whose value is twice the chance, less 1.

    Attributes:
        output: the regression; None: all have failed, or none.
        share: of rows that failed.
    """

    output: FittedOutput | None
    share: float

    @classmethod
    def fit(
        cls, groups: NDArray[np.int64], x: Floats, failed: NDArray[np.bool_], parameters: Floats | None = None
    ) -> FittedFailure:
        """Fit to rows: features [n, features], and whether they failed, [n]."""
        share = float(failed.mean())
        if share in (0.0, 1.0):
            return cls(None, share)
        level = np.zeros(len(x), np.int64)
        signs = np.where(failed, 1.0, -1.0)
        return cls(FittedOutput.fit(groups, x, level, signs, 1, warp=False, parameters=parameters), share)

    def chance(self, x: Floats) -> Floats:
        """Of a failure, [n]."""
        if self.output is None:
            return np.full(len(x), self.share)
        return _as_chance(self.output.quantiles(x, np.zeros(len(x), np.int64), (0.5,))[0])

    def draw(self, rng: np.random.Generator) -> Callable[[Floats], Floats]:
        """A function drawn from the posterior, as chances."""
        if self.output is None:
            return lambda x: np.full(len(x), self.share)
        function = self.output.draw(rng)
        return lambda x: _as_chance(function(x, np.zeros(len(x), np.int64)))


def _as_chance(sign: Floats) -> Floats:
    return np.clip(0.5 * (1.0 + sign), 0.0, 1.0)
