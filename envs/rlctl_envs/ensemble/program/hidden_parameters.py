"""Parameters of a task that its program knows and the campaign does not, and what it reports of its quality."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WORTH = 0.6
"""A task is worth having if its quality is at least this."""


@dataclass(frozen=True, slots=True)
class HiddenParameters:
    """Parameters of a task that are hidden from the campaign.

    Attributes:
        work_s: seconds on one rank.
        children: numbers of the tasks that it brings forth.
        traps: where in its work it is stuck, and how long, as shares of the time that it takes otherwise. One that goes
            on from a checkpoint is not stuck there again.
        quality: what it is worth, 0 to 1.
        slowness: factors of its attempts' times.
        luck: of its attempts, exponentially distributed: one dies when its rank-seconds times the rate of failures
            exceed this.
    """

    work_s: float
    children: tuple[int, ...]
    traps: tuple[tuple[float, float], ...]
    quality: float
    slowness: tuple[float, ...]
    luck: tuple[float, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HiddenParameters:
        """What ``Workload.to_json`` wrote; KeyError, TypeError or ValueError if something is missing or no number."""
        return cls(
            float(data["work_s"]),
            tuple(int(number) for number in data["children"]),
            tuple((float(at), float(length)) for at, length in data["traps"]),
            float(data["quality"]),
            tuple(float(factor) for factor in data["slowness"]),
            tuple(float(luck) for luck in data["luck"]),
        )

    def time_at(self, done: float, upto: float) -> float:
        """Time from the share ``done`` of the work to the share ``upto``, over the time of all work without traps."""
        return upto - done + sum(length for at, length in self.traps if done < at <= upto)

    def reached(self, done: float, passed: float) -> float:
        """The share of the work that is done ``passed`` later, in the same unit: the inverse of ``time_at``."""
        for at, length in self.traps:
            if at <= done:
                continue
            if passed < at - done:
                break
            passed -= at - done
            done = at
            if passed <= length:
                return done
            passed -= length
        return min(1.0, done + passed)


def quality_signal(seed: int, number: int, fraction: float, quality: float, noise: float) -> float:
    """The quality that a task reports when ``fraction`` of its work is done; the same whenever it is asked.

    It rises as learning curves and order parameters do, ``quality (1 - exp(-4 f)) / (1 - exp(-4))``, with a normal
    error of deviation ``noise (1 - f)``.

    >>> quality_signal(1, 2, 1.0, 0.7, 0.3)
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
