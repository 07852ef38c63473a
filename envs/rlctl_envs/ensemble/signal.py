"""What a running task says about its quality: a noisy trend that ends at what it is worth."""

from __future__ import annotations

import hashlib
import math


def signal(seed: int, number: int, fraction: float, quality: float, noise: float) -> float:
    """The value that a task reports when ``fraction`` of its work is done; the same whenever it is asked.

    It rises as learning curves and order parameters do, ``quality (1 - exp(-4 f)) / (1 - exp(-4))``, with a normal
    error of deviation ``noise (1 - f)``.

    >>> signal(1, 2, 1.0, 0.7, 0.3)
    0.7
    """
    trend = quality * (1.0 - math.exp(-4.0 * fraction)) / (1.0 - math.exp(-4.0))
    if noise <= 0.0 or fraction >= 1.0:
        return trend
    return trend + noise * (1.0 - fraction) * _normal(f"{seed}/{number}/{fraction:.6f}")


def _normal(key: str) -> float:
    """A normal number that belongs to a key (Box and Muller 1958)."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    one, two = (int.from_bytes(part, "big") + 1 for part in (digest[:8], digest[8:]))
    return math.sqrt(-2.0 * math.log(one / (2**64 + 1))) * math.cos(2.0 * math.pi * two / (2**64 + 1))
