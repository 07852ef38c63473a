"""Whether a campaign of segments has reached its goal, or ends without; and how good results are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import UntilOptions
from rlctl_envs.segments.options import SegmentsOptions
from rlctl_envs.segments.segments_state import SegmentsState

MOST_ON_TWIN = 1000
"""Segments of a campaign on a twin, should it be without end."""

MOST_FRUITLESS = 100
"""Segments in a row that may fail."""

WORTH = 10.0
"""Reward that reaching the goal is worth, in the shaping; a campaign that uses its whole budget costs as much."""

_ON_THE_WAY = 0.4
"""Share of a success that a simulation is worth just before the goal, in the shaping."""


class SegmentsGoal:
    """Levels of results, and what ``until`` says of them.

    A level is 0 or more at the goal: the least margin of the condition, how far the objective is better than the value
    to reach, or, without one, the objective, to be maximized.

    Attributes:
        number: successes that reach the goal; None: there is no such goal.
        aims: whether level 0 is the goal.
    """

    def __init__(self, options: SegmentsOptions, objective: SearchObjective) -> None:
        self._until, self._objective = options.until, objective
        self.number = self._until.found or (1 if self._until.value is not None else None)
        self.aims = self.number is not None
        self.on_twin = False
        self.fruitless = 0

    def moved(self, until: UntilOptions) -> None:
        """Another goal; failures in a row are counted anew."""
        self._until, self.fruitless = until, 0
        self.number = until.found or (1 if until.value is not None else None)
        self.aims = self.number is not None

    def forget(self) -> None:
        """Another campaign begins."""
        self.on_twin, self.fruitless = False, 0

    def level(self, values: Mapping[str, Any]) -> float:
        """Of results and control values.

        Raises:
            ConfigError: an expression cannot be computed, or is no finite number.
        """
        found = self._objective.assess(values)
        least = min(found.margins, default=math.inf)
        if not found.losses:
            return least
        if self._until.value is None:
            return -found.losses[0] if least >= 0.0 else -found.losses[0] + least
        return min(self._objective.signs[0] * self._until.value - found.losses[0], least)

    def hit(self, level: float) -> bool:
        """Whether a simulation has got where it should."""
        return level >= 0.0 and (self.aims or self.on_twin)

    def reached(self, state: SegmentsState) -> bool:
        """Whether the goal is reached."""
        return (self.aims or self.on_twin) and state.memory.found >= (self.number or 1)

    def potential(self, state: SegmentsState) -> float:
        """How much reward is missing to the goal, for the shaping."""
        needed = self.number or 1
        on_the_way = sum(max(state.progress(simulation), 0.0) for simulation in state.simulations.values())
        return -WORTH * max(needed - state.memory.found - _ON_THE_WAY * on_the_way, 0.0) / needed

    def over(self, state: SegmentsState) -> str:
        """Why the campaign ends, though its goal is not reached; empty: it does not."""
        until = self._until
        if state.now_s >= state.deadline_s:
            return "the budget is used"
        ended = state.measured + state.infeasible
        if until.evaluations is not None and ended >= until.evaluations:
            return f"{ended} segments"
        if until.no_improvement is not None and (since := self._since_improvement(state)) >= until.no_improvement:
            return f"no improvement in {since} segments"
        if self.fruitless >= MOST_FRUITLESS:
            return f"{self.fruitless} segments in a row without a result"
        return "a long campaign on the twin" if self.on_twin and len(state.segments) >= MOST_ON_TWIN else ""

    def _since_improvement(self, state: SegmentsState) -> int:
        """Segments with results since the newest that no earlier one was as good as."""
        best, since = -math.inf, 0
        for segment in state.segments:
            if segment.level is not None:
                since += 1
                if segment.level > best:
                    best, since = segment.level, 0
        return since
