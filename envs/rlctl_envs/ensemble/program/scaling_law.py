"""How long a task takes on so many ranks: the one law of the twin, the paced programs and the estimates."""

from __future__ import annotations

import math


def loss(ranks: int, serial: float, kappa: float) -> float:
    """Rank-seconds on ``ranks`` ranks over those on one: Amdahl's law with a logarithmic cost of communication.

    The inverse of the parallel efficiency, ``n (s + (1 - s) / n (1 + kappa log2 n))``.

    >>> loss(1, 0.1, 0.2), loss(4, 0.0, 0.0), loss(4, 1.0, 0.0), loss(2, 0.0, 0.5)
    (1.0, 1.0, 4.0, 1.5)
    """
    return serial * ranks + (1.0 - serial) * (1.0 + kappa * math.log2(ranks))


def seconds(work_s: float, ranks: int, serial: float, kappa: float, gain: float = 1.0) -> float:
    """Seconds that ``work_s`` seconds of one rank take.

    Args:
        gain: times that a rank with a GPU is faster than one without.

    >>> seconds(100.0, 4, 0.0, 0.0), seconds(100.0, 4, 0.0, 0.0, gain=5.0)
    (25.0, 5.0)
    """
    if serial == 1.0:
        return work_s / gain  # on any number of ranks, to the last digit
    return work_s * loss(ranks, serial, kappa) / (ranks * gain)
