"""What measurements of films tell of their material: the transition, and how much its films fluctuate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_TRANSITION = np.linspace(1.1, 1.9, 33)
_LOG_GAIN = np.linspace(math.log(0.25), math.log(6.0), 17)
_ROUNDING = np.array([0.01, 0.03, 0.07])
_PRIOR = np.broadcast_to(-0.5 * ((_LOG_GAIN - math.log(1.25)) / 0.65) ** 2, (3, 33, 17))
_ERROR = 0.1
"""Deviation of the logarithm of an amplitude from the model, for films that are neither new nor between two states."""
_YOUNG_ERROR = 0.3
"""The same for a film's first measurement: it has not segregated fully."""
_OUTLIER = 9.0
"""No measurement counts against a hypothesis by more than this, so that one wrong amplitude is forgiven."""
_REMEMBERED = 40
"""Measurements after which old ones begin to fade: the model is not exact, and the last films matter most."""

_FLUCTUATION = (1.263, -0.854, -4.39)
"""Least squares over 4,500 measurements of 64 materials of the twin, of the logarithm of the noise by the last band,
log A and T over the transition: a share of 0.69 of its variance, on materials that were left out."""
_CENTRE = (-2.218, -1.25, 0.8)
_SETTLED = 240
"""Age from which a film's spectrum is that of its temperature."""
_HELD = 3.0
"""Measurements that the means over materials count for."""


class TransitionPosterior:
    """A posterior of the transition on a grid, and means of two further quantities.

    Below the transition the amplitude of the one wave that a film consists of is that of a pitchfork bifurcation,
    ``A^2 = gain (r + sqrt(r^2 + 4 rounding^2)) / 2`` with ``r = transition / T - 1`` (Cross and Hohenberg 1993,
    doi:10.1103/RevModPhys.65.851, section IV; the rounding stands for noise). Gain (instrument and steepness),
    rounding and transition are unknown; errors of log A are normal, with their tails cut off.

    Attributes:
        transition: its posterior mean.
        fluctuation: logarithm of the noise over its typical value, from the power at short waves.
        pitch: logarithm of the wavenumber over its typical value.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all measurements."""
        self.seen: list[list[float]] = []
        self.transition = 1.55
        self.fluctuation = self.pitch = 0.0
        self._settled = 0
        self._log = _PRIOR.copy()

    def learn(self, temperature: float, amplitude: float, age: int, bands: Sequence[float], wavenumber: float) -> None:
        """Take a measurement of a film of this age, after a segment at this temperature."""
        log_a = math.log(max(amplitude, 1e-3))
        settled = [float(bands[-1]), math.log(max(wavenumber, 1e-3) / 0.7)] if bands and age >= _SETTLED else []
        self._add([temperature, log_a, float(age), *settled])

    def _add(self, seen: list[float]) -> None:
        temperature, log_a, age, *settled = seen
        self.seen.append(seen)
        r = _TRANSITION / temperature - 1.0
        shape = 0.5 * np.log(0.5 * (r + np.sqrt(r * r + 4.0 * _ROUNDING[:, None] ** 2)))
        error = (log_a - shape)[:, :, None] - 0.5 * _LOG_GAIN
        error *= 1.0 / (_ERROR if age >= _SETTLED else _YOUNG_ERROR)
        np.multiply(error, error, out=error)
        np.minimum(error, _OUTLIER, out=error)
        error *= 0.5
        self._log -= error
        if len(self.seen) > _REMEMBERED:
            self._log *= 0.98
        weight = np.exp(self._log - self._log.max()).sum(axis=(0, 2))
        self.transition = float(weight @ _TRANSITION / weight.sum())
        if settled:
            values = (settled[0], log_a, temperature / self.transition)
            noise = sum(w * (v - c) for w, v, c in zip(_FLUCTUATION, values, _CENTRE, strict=True))
            self._settled += 1
            self.fluctuation += (noise - self.fluctuation) / (self._settled + _HELD)
            self.pitch += (settled[1] - self.pitch) / (self._settled + _HELD)

    def state(self) -> Mapping[str, Any]:
        """The measurements, which give all else."""
        return {"seen": [list(one) for one in self.seen]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the measurements again."""
        self.clear()
        for one in state["seen"]:
            self._add(list(one))
