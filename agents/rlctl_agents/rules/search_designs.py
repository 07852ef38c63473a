"""Rules for searches that choose points beforehand: at random, or spread evenly over the space."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView


class RandomSearch(SearchRule):
    """Points at random (Bergstra and Bengio 2012)."""

    name = "random_search"

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """A random point."""
        point = state.untried(rng)
        return (state.space.sample(rng, 1)[0] if point is None else point), state.counts


class Sobol(SearchRule):
    """Points of a scrambled Sobol sequence (Owen 1998; ``scipy.stats.qmc``)."""

    name = "sobol"

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The next point of the sequence."""
        return state.space.spread(state.seed, state.started - len(state.starts)), state.counts


class LatinHypercube(SearchRule):
    """Points of Latin hypercubes (McKay, Beckman and Conover 1979; ``scipy.stats.qmc``).

    Args:
        size: points of each hypercube; 0: as many as the search evaluates, or 32.
    """

    name = "latin_hypercube"

    def __init__(self, size: int = 0, **shared: Any) -> None:
        super().__init__(**shared)
        self.size = size

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The next point of the hypercube."""
        size = max(1, int(self.size) or state.options.until.evaluations or 32)
        return state.space.latin_hypercube(state.seed, state.started - len(state.starts), size), state.counts
