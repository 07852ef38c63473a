"""Free energy of a film, which its equation lowers."""

from __future__ import annotations

import numpy as np

from rlctl_envs.block_copolymer.field import Spectrum, to_field, wavenumbers
from rlctl_envs.block_copolymer.material import Material


def free_energy(c_hat: Spectrum, material: Material, temperature: float) -> float:
    """Free energy per area: -tau c^2/2 + c^4/4 + |grad c|^2/2 + gamma/2 (c - mean) (-lap)^-1 (c - mean)."""
    ky, kx = wavenumbers(c_hat.shape[0])
    k2 = ky[:, None] ** 2 + kx[None, :] ** 2
    inverse = np.divide(material.gamma, k2, out=np.zeros_like(k2), where=k2 > 0.0)
    # Each mode with 0 < kx < Nyquist stands for its conjugate too.
    weight = np.full(kx.size, 2.0)
    weight[[0, -1]] = 1.0
    quadratic = 0.5 * np.sum(weight * (k2 - material.tau(temperature) + inverse) * np.abs(c_hat) ** 2)
    return float(quadratic + 0.25 * np.mean(to_field(c_hat) ** 4))
