"""Open-loop rules: the temperature depends on the film's age alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from rlctl_agents.rules.annealing import SHARED, AnnealingRule


class Constant(AnnealingRule):
    """One temperature throughout.

    Args:
        hold: the temperature.
    """

    name = "constant"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {"hold": (1.0, 2.0), **SHARED}

    def __init__(self, hold: float = 1.25, **shared: float) -> None:
        super().__init__(**shared)
        self.hold = hold

    def temperature(self, fields: Mapping[str, Any], steps: int) -> float:
        """The one temperature."""
        return self.hold


class Linear(AnnealingRule):
    """From ``start`` to ``end`` in ``duration_steps`` time steps, then ``end``.

    Args:
        start: temperature of a fresh film.
        end: temperature after the ramp.
        duration_steps: time steps that the ramp takes.
    """

    name = "linear"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.0, 2.0),
        "end": (1.0, 2.0),
        "duration_steps": (200.0, 12000.0, "log"),
        **SHARED,
    }

    def __init__(self, start: float = 1.65, end: float = 1.15, duration_steps: float = 4000.0, **shared: float) -> None:
        super().__init__(**shared)
        self.start, self.end, self.duration_steps = start, end, duration_steps

    def temperature(self, fields: Mapping[str, Any], steps: int) -> float:
        """Linear in the age."""
        age: int = fields["age_steps"]
        return self.start + (self.end - self.start) * min(age / self.duration_steps, 1.0)


class Exponential(AnnealingRule):
    """``end + (start - end) exp(-age / decay_steps)``.

    Args:
        start: temperature of a fresh film.
        end: temperature that is approached.
        decay_steps: time steps in which the distance falls to 1 / e.
    """

    name = "exponential"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.0, 2.0),
        "end": (1.0, 2.0),
        "decay_steps": (100.0, 8000.0, "log"),
        **SHARED,
    }

    def __init__(self, start: float = 1.7, end: float = 1.1, decay_steps: float = 2000.0, **shared: float) -> None:
        super().__init__(**shared)
        self.start, self.end, self.decay_steps = start, end, decay_steps

    def temperature(self, fields: Mapping[str, Any], steps: int) -> float:
        """Exponential in the age."""
        return self.end + (self.start - self.end) * math.exp(-fields["age_steps"] / self.decay_steps)


class Cyclic(AnnealingRule):
    """A linear ramp with a cosine of ``swing`` and ``period_steps`` on it, fading as the ramp ends.

    Args:
        start: temperature of the ramp for a fresh film.
        end: temperature after the ramp.
        duration_steps: time steps that the ramp takes.
        swing: amplitude of the cosine at first.
        period_steps: time steps of one cycle.
    """

    name = "cyclic"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.0, 2.0),
        "end": (1.0, 2.0),
        "duration_steps": (200.0, 12000.0, "log"),
        "swing": (0.0, 0.5),
        "period_steps": (160.0, 4000.0, "log"),
        **SHARED,
    }

    def __init__(
        self,
        start: float = 1.65,
        end: float = 1.15,
        duration_steps: float = 4000.0,
        swing: float = 0.1,
        period_steps: float = 800.0,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.end, self.duration_steps = start, end, duration_steps
        self.swing, self.period_steps = swing, period_steps

    def temperature(self, fields: Mapping[str, Any], steps: int) -> float:
        """A ramp with cycles of reheating."""
        age: int = fields["age_steps"]
        done = min(age / self.duration_steps, 1.0)
        cycle = self.swing * (1.0 - done) * math.cos(2.0 * math.pi * age / self.period_steps)
        return self.start + (self.end - self.start) * done + cycle
