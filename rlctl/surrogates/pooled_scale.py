"""One transformation for the outputs of many campaigns, so that the first results of the next one can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.surrogates.output_model import POWERS, inverse_yeo_johnson, yeo_johnson

Floats = NDArray[np.float64]

_LEAST = 1e-300


@dataclass(frozen=True, slots=True)
class PooledScale:
    """Logarithm if it helps, robust location and scale, Yeo and Johnson's power, then mean and deviation.

    Attributes:
        logarithm: whether logarithms are taken first.
        centre, spread: median and interquartile range of all outputs.
        power: of the transformation; 1 leaves values as they are.
        mean, deviation: afterwards.
    """

    logarithm: bool = False
    centre: float = 0.0
    spread: float = 1.0
    power: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, campaigns: Sequence[Floats], warp: bool) -> PooledScale:
        """Choose it: within each campaign, transformed outputs should look normally distributed.

        Args:
            campaigns: outputs of each, [n] each; at least one value in all.
            warp: whether skewness is transformed.
        """
        everything = np.concatenate(campaigns)
        best, most = cls._standard(everything, False, 1.0), -math.inf
        logarithms = (False, True) if warp and everything.min() > 0.0 else (False,)
        for logarithm in logarithms:
            for power in POWERS if warp else (1.0,):
                found = cls._standard(everything, logarithm, power)
                likelihood = found._log_likelihood(campaigns)
                if likelihood > most:
                    best, most = found, likelihood
        return best

    @classmethod
    def _standard(cls, y: Floats, logarithm: bool, power: float) -> PooledScale:
        raw = np.log(y) if logarithm else y
        low, centre, high = np.quantile(raw, [0.25, 0.5, 0.75])
        spread = float(high - low) or float(np.std(raw)) or 1.0
        z = cls(logarithm, float(centre), spread, power).warped(y)
        return cls(logarithm, float(centre), spread, power, float(z.mean()), float(z.std()) or 1.0)

    def _log_likelihood(self, campaigns: Sequence[Floats]) -> float:
        """Of the outputs, each campaign normal with its own mean and deviation."""
        total = 0.0
        for y in campaigns:
            if len(y) > 2:
                total += self.log_slope(y).sum() - len(y) * math.log(max(float(self.warped(y).std()), 1e-9))
        return float(total)

    def warped(self, y: Floats | float) -> Floats:
        """Outputs in pooled units."""
        scaled = (self._raw(y) - self.centre) / self.spread
        if self.power != 1.0:
            scaled = yeo_johnson(scaled, self.power)
        return np.asarray((scaled - self.mean) / self.deviation)

    def unwarped(self, z: Floats) -> Floats:
        """Outputs of pooled units."""
        scaled = self.mean + self.deviation * np.asarray(z, float)
        if self.power != 1.0:
            scaled = inverse_yeo_johnson(scaled, self.power)
        raw = self.centre + self.spread * scaled
        return np.asarray(np.exp(np.clip(raw, -690.0, 690.0)) if self.logarithm else raw)

    def log_slope(self, y: Floats) -> Floats:
        """Logarithm of the derivative of ``warped``, [n]."""
        raw = self._raw(y)
        scaled = (raw - self.centre) / self.spread
        slope = np.sign(scaled) * (self.power - 1.0) * np.log1p(np.abs(scaled))
        return np.asarray(slope - math.log(self.spread * self.deviation) - (raw if self.logarithm else 0.0))

    def _raw(self, y: Floats | float) -> Floats:
        values = np.asarray(y, float)
        return np.log(np.maximum(values, _LEAST)) if self.logarithm else values

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
