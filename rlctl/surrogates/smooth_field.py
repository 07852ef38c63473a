"""Functions drawn from a Gaussian process before it has seen any data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SmoothField:
    """A function drawn from a Matern 5/2 process, by random Fourier features (Rahimi and Recht 2007).

    Attributes:
        frequencies: [features, m].
        phases, amplitudes: [m].
    """

    frequencies: Floats
    phases: Floats
    amplitudes: Floats

    @classmethod
    def draw(cls, rates: Floats, rng: np.random.Generator, count: int) -> SmoothField:
        """Draw one with mean 0 and variance 1.

        Args:
            rates: how fast it changes along each feature, that is, 1 / length scale, [features].
            count: waves that it is the sum of.
        """
        # Student's t with 5 degrees of freedom is the spectrum of the Matern function of order 5/2.
        heavy = np.sqrt(5.0 / rng.chisquare(5.0, count))
        frequencies = rng.standard_normal((len(rates), count)) * rates[:, None] * heavy
        phases = rng.uniform(0.0, 2.0 * math.pi, count)
        return cls(frequencies, phases, rng.standard_normal(count) * math.sqrt(2.0 / count))

    def __call__(self, x: Floats) -> Floats:
        """Values at features [n, features]."""
        return np.asarray(np.cos(x @ self.frequencies + self.phases) @ self.amplitudes)
