"""A design that measures how a program scales: each point on all resources that it may have, one run at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView, Space


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
        """The next choice; in the other order at every second point, lest what changes with time looks like scaling."""
        ordered = sorted(fitting, key=lambda need: (need.cores, need.gpus, need.ranks))
        number, choice = self._place(state)
        return ordered[choice if number % 2 == 0 else -1 - choice]

    def _place(self, state: SearchView) -> tuple[int, int]:
        """Numbers of point and choice."""
        return divmod(state.started, max(1, len(state.fitting(state.counts))))
