"""Designs that measure how a program scales: each point on all resources that it may have, one run at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from rlctl_agents.rules.restarts import GOLDEN
from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView, Space
from rlctl_agents.rules.segment_rule import Ranges, SegmentRule, SegmentsView


class ScalingDesign(SearchRule):
    """Points of a Sobol sequence, each on every choice of resources, while nothing else runs; ``rlctl calibrate``."""

    name = "scaling_design"
    SPACE: ClassVar[Space] = {}

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
        """The next point, once nothing runs that could slow it down."""
        if state.running:
            return None
        return state.space.spread(state.seed, self._place(state)[0]), state.counts

    def resources(self, state: SearchView, point: Floats, stage: int, fitting: Sequence[Any]) -> Any:
        """The next choice."""
        number, choice = self._place(state)
        return _ordered(fitting, lambda need: need, number)[choice]

    def _place(self, state: SearchView) -> tuple[int, int]:
        """Numbers of point and choice."""
        return divmod(state.started, max(1, len(state.fitting(state.counts))))


class FirstSegments(SegmentRule):
    """Likewise of simulations in segments: each is given up after its first one, which has the middle length."""

    name = "first_segments"
    SPACE: ClassVar[Ranges] = {}

    def __init__(self) -> None:
        super().__init__()

    def ends(self, state: SegmentsView, simulation: Any) -> str | None:
        """After its first segment."""
        return "start_anew"

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """Those of the point."""
        point = simulation.number // len(state.possible)
        return [(0.5 + point * GOLDEN[i % len(GOLDEN)]) % 1.0 for i in range(len(state.controls))]

    def _choice(self, state: SegmentsView, simulation: Any) -> int:
        """See ``SegmentRule``."""
        point, choice = divmod(simulation.number, len(state.possible))
        chosen: int = _ordered(state.possible, lambda i: state.resources[i], point)[choice]
        return chosen


def _ordered(choices: Sequence[Any], need: Callable[[Any], Any], point: int) -> list[Any]:
    """By resources; the other way round at every second point, lest what changes with time looks like scaling."""
    return sorted(choices, key=lambda one: (need(one).cores, need(one).gpus, need(one).ranks), reverse=point % 2 == 1)
