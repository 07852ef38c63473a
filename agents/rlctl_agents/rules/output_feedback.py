"""Feedback on an output of a simulation in segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rlctl.core.errors import ConfigError
from rlctl_agents.rules.segment_rule import Ranges, SegmentRule, SegmentsView


class ProportionalFeedback(SegmentRule):
    """A control value that follows an output linearly: ``start`` at its lowest, ``end`` at its highest.

    Args:
        start: value, from 0 to 1, where the output is as low as it has been so far, or where simulations begin.
        end: value where it is as high as it has been, or at the goal.
        output: name of the result; None: how far the simulation has come.
        control: number of the control that moves.
        others: value of the others.
    """

    name = "proportional_feedback"
    SPACE: ClassVar[Ranges] = {
        **SegmentRule.SPACE,
        "start": (0.0, 1.0),
        "end": (0.0, 1.0),
        "others": (0.0, 1.0),
    }

    def __init__(
        self,
        start: float = 0.4,
        end: float = 0.6,
        output: str | None = None,
        control: int = 0,
        others: float = 0.5,
        **shared: float,
    ) -> None:
        super().__init__(**shared)
        self.start, self.end, self.output, self.control, self.others = start, end, output, control, others

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """Linear in the output."""
        value = self.start + (self.end - self.start) * self._seen(state, simulation)
        return [min(max(value, 0.0), 1.0) if i == self.control else self.others for i in range(len(state.controls))]

    def _seen(self, state: SegmentsView, simulation: Any) -> float:
        if self.output is None:
            return state.progress(simulation)
        if self.output not in state.results:
            raise ConfigError(f"there is no result {self.output!r}: it is one of {', '.join(state.results)}")
        last = simulation.last
        return 0.0 if last is None else float(last.shown[state.results.index(self.output)])
