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

FAR = 1e3
"""Interquartile ranges beyond which outputs are told apart no longer."""


@dataclass(frozen=True, slots=True)
class PooledScale:
    """Robust location and scale, Yeo and Johnson's power, then mean and deviation.

    Attributes:
        centre, spread: median and interquartile range of all outputs.
        power: of the transformation; 1 leaves values as they are.
        mean, deviation: afterwards.
    """

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
        found = [cls._standard(everything, power) for power in (POWERS if warp else (1.0,))]
        return max(found, key=lambda scale: scale._log_likelihood(campaigns))

    @classmethod
    def _standard(cls, y: Floats, power: float) -> PooledScale:
        low, centre, high = np.quantile(y, [0.25, 0.5, 0.75])
        spread = float(high - low) or float(np.std(y)) or 1.0
        z = cls(float(centre), spread, power).warped(y)
        return cls(float(centre), spread, power, float(z.mean()), float(z.std()) or 1.0)

    def _log_likelihood(self, campaigns: Sequence[Floats]) -> float:
        """Of the outputs, each campaign normal with its own mean and deviation."""
        total = 0.0
        for y in campaigns:
            if len(y) > 2:
                total += self.log_slope(y).sum() - len(y) * math.log(max(float(self.warped(y).std()), 1e-9))
        return float(total)

    def warped(self, y: Floats | float) -> Floats:
        """Outputs in pooled units."""
        scaled = self._scaled(y)
        if self.power != 1.0:
            scaled = yeo_johnson(scaled, self.power)
        return np.asarray((scaled - self.mean) / self.deviation)

    def unwarped(self, z: Floats) -> Floats:
        """Outputs of pooled units."""
        scaled = self.mean + self.deviation * np.asarray(z, float)
        if self.power != 1.0:
            scaled = inverse_yeo_johnson(scaled, self.power)
        return np.asarray(self.centre + self.spread * np.clip(scaled, -FAR, FAR))

    def log_slope(self, y: Floats) -> Floats:
        """Logarithm of the derivative of ``warped``, [n]."""
        scaled = self._scaled(y)
        slope = np.sign(scaled) * (self.power - 1.0) * np.log1p(np.abs(scaled))
        return np.asarray(slope - math.log(self.spread * self.deviation))

    def _scaled(self, y: Floats | float) -> Floats:
        return np.clip((np.asarray(y, float) - self.centre) / self.spread, -FAR, FAR)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
