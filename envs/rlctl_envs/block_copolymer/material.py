"""A material: the hidden parameters of one campaign, and the equation that they stand in.

The film is a field c(x, y, t), the local excess of one block, on a periodic square of side ``BOX``:

    dc/dt = M(T) [ lap(-tau(T) c + c^3 - lap c) - gamma (c - mean) ] + div(conserved white noise)

This is the Ohta-Kawasaki (Cahn-Hilliard-Oono) equation that EXARL's ExaCH anneals as well. There the incompatibility
chi(T) falls with temperature and sets both the interface term eps^2(T), proportional to 1/chi, and the term
sigma(T), also proportional to 1/chi, that stands for the chains' connectivity and limits the domains' size, while the
bulk term stays fixed. Measuring lengths and concentrations in units in which the interface term and the cubic term
are 1 leaves the same temperature in other places: chi(T) appears as the depth ``tau`` of the double well, which passes
the threshold of segregation 2 sqrt(gamma) at ``t_odt``; sigma(T)/eps^2(T), which does not depend on T, is ``gamma``;
and the pace of it all is the mobility M(T). The thermal noise, which is off in EXARL, is what lets defects heal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOX = 48.0
"""Side of the film, in units of the equation."""
COARSE = 32
"""Grid whose modes carry the noise and the measurement, on any grid of the solver."""
DT = 1.0
"""Time step."""
STABILISER = 0.5
"""S of the time step: S lap(c) is added implicitly and taken off explicitly."""
T_MIN = 1.0
T_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Material:
    """What is hidden from the policy.

    Attributes:
        t_odt: temperature of the order-disorder transition, where the uniform state loses its stability.
        activation: activation energy of the mobility, in units of temperature.
        gamma: strength of the long-range term; the natural wavenumber is gamma^(1/4).
        steepness: how fast the well deepens on cooling.
        noise: strength of the thermal noise.
        mean: mean of the field (composition off 1/2).
        contrast: gain of the measured amplitude.
    """

    t_odt: float
    activation: float
    gamma: float
    steepness: float
    noise: float
    mean: float
    contrast: float

    @classmethod
    def draw(cls, seed: int) -> Material:
        """A random material; equal seeds give equal materials.

        >>> Material.draw(7) == Material.draw(7)
        True
        """
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        return cls(
            t_odt=rng.uniform(1.2, 1.9),
            activation=rng.uniform(1.5, 4.5),
            gamma=0.25 * math.exp(rng.uniform(-0.35, 0.35)),
            steepness=rng.uniform(1.0, 2.5),
            noise=math.exp(rng.uniform(math.log(0.01), math.log(0.06))),
            mean=rng.uniform(0.0, 0.12),
            contrast=math.exp(rng.uniform(-0.5, 0.5)),
        )

    def tau(self, temperature: float) -> float:
        """Depth of the double well."""
        return 2.0 * math.sqrt(self.gamma) * (1.0 + self.steepness * (self.t_odt / temperature - 1.0))

    def mobility(self, temperature: float) -> float:
        """Pace of the dynamics; 1 at the highest temperature."""
        return math.exp(-self.activation * (1.0 / temperature - 1.0 / T_MAX))

    def to_json(self) -> dict[str, float]:
        """All parameters by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Material:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: a parameter is missing, unknown, not a finite number, or of a sign that has no meaning.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise ValueError(f"a material has the parameters {', '.join(sorted(names))}, got {values!r:.200}")
        try:
            material = cls(**{name: float(values[name]) for name in names})
        except TypeError as error:
            raise ValueError(f"a parameter of the material is not a number: {error}") from None
        for name, value in material.to_json().items():
            if not math.isfinite(value) or (name != "mean" and value < 0.0) or (name in _POSITIVE and value == 0.0):
                raise ValueError(f"parameter {name} of the material cannot be {value}")
        return material

    def as_array(self) -> NDArray[np.float32]:
        """[7] the parameters in order, each scaled to about -1 to 1 over the materials that are drawn."""
        return np.array(
            [
                (self.t_odt - 1.55) / 0.35,
                (self.activation - 3.0) / 1.5,
                math.log(self.gamma / 0.25) / 0.35,
                (self.steepness - 1.75) / 0.75,
                (math.log(max(self.noise, 1e-9)) - _LOG_NOISE) / _LOG_NOISE_HALF,
                (self.mean - 0.06) / 0.06,
                math.log(self.contrast) / 0.5,
            ],
            dtype=np.float32,
        )


_POSITIVE = ("t_odt", "gamma", "contrast")
_LOG_NOISE = 0.5 * (math.log(0.01) + math.log(0.06))
_LOG_NOISE_HALF = 0.5 * (math.log(0.06) - math.log(0.01))
