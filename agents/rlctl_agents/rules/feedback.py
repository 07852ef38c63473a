"""Feedback: keep the film just below its transition, where defects heal, and cool it once it is aligned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rlctl_agents.rules.annealing import SHARED, AnnealingRule

LEAST_AMPLITUDE = 0.3
"""A film of less amplitude than this, whatever the instrument's gain, has not segregated yet."""


class Feedback(AnnealingRule):
    """``T += gain (A / A_max - target)``, or ``T -= cool`` once Q > ``aligned_q``; at most 0.25 per 80 steps.

    ``A_max`` is the largest amplitude measured of this material so far: the gain of the instrument is unknown, so the
    rule calibrates itself. Before any film has segregated it is taken as ``LEAST_AMPLITUDE``.

    Args:
        start: temperature of a fresh film.
        target: share of ``A_max`` that is held while the film is not aligned.
        gain: temperature per share, per 80 steps.
        aligned_q: order parameter from which the film is cooled.
        cool: temperature by which it is cooled, per 80 steps.
    """

    name = "feedback"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.0, 2.0),
        "target": (0.2, 1.1),
        "gain": (0.02, 2.0, "log"),
        "aligned_q": (0.3, 1.0),
        "cool": (0.002, 0.25, "log"),
        **SHARED,
    }

    def __init__(
        self,
        start: float = 1.89,
        target: float = 0.8,
        gain: float = 0.3,
        aligned_q: float = 0.75,
        cool: float = 0.05,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.target, self.gain = start, target, gain
        self.aligned_q, self.cool = aligned_q, cool

    def temperature(self, fields: Mapping[str, Any], steps: int) -> float:
        """See the class."""
        if fields["fresh"]:
            return self.start
        if fields["q"] > self.aligned_q:
            change = -self.cool
        else:
            change = self.gain * (fields["amplitude"] / max(fields["largest_amplitude"], LEAST_AMPLITUDE) - self.target)
        return float(fields["temperature"] + min(max(change, -0.25), 0.25) * steps / 80.0)
