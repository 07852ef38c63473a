"""Schedules: control values that depend on the length of the simulation so far alone.

They move the first control, or the one with the number ``control``; the others stay at ``others``. Values are given
from 0, the lowest, to 1, the highest, and lengths in segments of the middle length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rlctl_agents.rules.segment_rule import Ranges, SegmentRule, SegmentsView

_SPACE: Ranges = {**SegmentRule.SPACE, "others": (0.0, 1.0)}
_ENDS: Ranges = {"start": (0.0, 1.0), "end": (0.0, 1.0)}
_DURATION: Ranges = {"duration": (1.0, 60.0, "log")}

Shape = Callable[[float], float]
"""The value at a length."""


def _scheduled(state: SegmentsView, simulation: Any, shape: Shape, control: int, others: float) -> Sequence[float]:
    value = shape(simulation.elapsed / state.middle)
    return [min(max(value, 0.0), 1.0) if i == control else others for i in range(len(state.controls))]


class ScheduleConstant(SegmentRule):
    """One value throughout.

    Args:
        hold: the value.
        control: number of the control that moves.
        others: value of the others.
    """

    name = "schedule_constant"
    SPACE: ClassVar[Ranges] = {**_SPACE, "hold": (0.0, 1.0)}

    def __init__(self, hold: float = 0.5, control: int = 0, others: float = 0.5, **shared: float) -> None:
        super().__init__(**shared)
        self.hold, self.control, self.others = hold, control, others

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """The one value."""
        return _scheduled(state, simulation, lambda age: self.hold, self.control, self.others)


class ScheduleRamp(SegmentRule):
    """From ``start`` to ``end``, linearly in ``duration``, then ``end``.

    Args:
        start: value at the beginning.
        end: value after the ramp.
        duration: length of the ramp.
        control: number of the control that moves.
        others: value of the others.
    """

    name = "schedule_ramp"
    SPACE: ClassVar[Ranges] = {**_SPACE, **_ENDS, **_DURATION}

    def __init__(
        self,
        start: float = 0.6,
        end: float = 0.4,
        duration: float = 10.0,
        control: int = 0,
        others: float = 0.5,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.end, self.duration, self.control, self.others = start, end, duration, control, others

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """Linear in the length so far."""

        def shape(age: float) -> float:
            return self.start + (self.end - self.start) * min(age / self.duration, 1.0)

        return _scheduled(state, simulation, shape, self.control, self.others)


class ScheduleExponential(SegmentRule):
    """``end + (start - end) exp(-length / duration)``.

    Args:
        start: value at the beginning.
        end: value that is approached.
        duration: length in which the distance falls to 1 / e.
        control: number of the control that moves.
        others: value of the others.
    """

    name = "schedule_exponential"
    SPACE: ClassVar[Ranges] = {**_SPACE, **_ENDS, **_DURATION}

    def __init__(
        self,
        start: float = 0.6,
        end: float = 0.4,
        duration: float = 5.0,
        control: int = 0,
        others: float = 0.5,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.end, self.duration, self.control, self.others = start, end, duration, control, others

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """Exponential in the length so far."""

        def shape(age: float) -> float:
            return self.end + (self.start - self.end) * math.exp(-age / self.duration)

        return _scheduled(state, simulation, shape, self.control, self.others)


class ScheduleCycle(SegmentRule):
    """A cosine around the middle of ``start`` and ``end``, from ``start`` to ``end`` and back in ``duration``.

    Args:
        start: value at the beginning of a cycle.
        end: value in its middle.
        duration: length of a cycle.
        control: number of the control that moves.
        others: value of the others.
    """

    name = "schedule_cycle"
    SPACE: ClassVar[Ranges] = {**_SPACE, **_ENDS, **_DURATION}

    def __init__(
        self,
        start: float = 0.6,
        end: float = 0.4,
        duration: float = 8.0,
        control: int = 0,
        others: float = 0.5,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.end, self.duration, self.control, self.others = start, end, duration, control, others

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """Periodic in the length so far."""

        def shape(age: float) -> float:
            half = 0.5 * (self.start - self.end)
            return self.end + half * (1.0 + math.cos(2.0 * math.pi * age / self.duration))

        return _scheduled(state, simulation, shape, self.control, self.others)


class SchedulePiecewise(SegmentRule):
    """``start``, then ``middle`` from the length ``first`` on, then ``end`` from ``second`` later on.

    Args:
        start: first value.
        middle: second value.
        end: last value.
        first: length of the first piece.
        second: length of the second piece.
        control: number of the control that moves.
        others: value of the others.
    """

    name = "schedule_piecewise"
    SPACE: ClassVar[Ranges] = {
        **_SPACE,
        **_ENDS,
        "middle": (0.0, 1.0),
        "first": (1.0, 40.0, "log"),
        "second": (1.0, 40.0, "log"),
    }

    def __init__(
        self,
        start: float = 0.6,
        middle: float = 0.5,
        end: float = 0.4,
        first: float = 4.0,
        second: float = 4.0,
        control: int = 0,
        others: float = 0.5,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.middle, self.end, self.first, self.second = start, middle, end, first, second
        self.control, self.others = control, others

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """One of three values."""

        def shape(age: float) -> float:
            return self.start if age < self.first else self.middle if age < self.first + self.second else self.end

        return _scheduled(state, simulation, shape, self.control, self.others)
