"""CMA-ES for searches, asynchronous: its state follows from the results so far, in the order in which they came."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from cmaes import CMA

from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView, Space

_ATTEMPTS = 50
"""Points that are drawn for one that is allowed and new."""


class CmaEs(SearchRule):
    """Covariance matrix adaptation in the unit cube (Hansen 2016, arXiv:1604.00772; package ``cmaes``).

    Each ``population`` results make a generation, whatever the distribution that their points were drawn from: no run
    is waited for. Order alone counts: feasible results by their loss, then others by how far they violate constraints,
    then points without a result. Where it has converged it starts anew from a random point, with twice the population
    (Auger and Hansen 2005).

    Args:
        sigma: first step size, in units of the cube.
        population: results of a generation, in multiples of the default of ``cmaes``.
    """

    name = "cma_es"
    SPACE: ClassVar[Space] = {"sigma": (0.1, 0.5), "population": (0.5, 3.0), **SearchRule.SPACE}

    def __init__(self, sigma: float = 0.3, population: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.sigma, self.population = sigma, population

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """A point drawn from the distribution of the newest generation."""
        optimizer = self._optimizer(state, seed=int(rng.integers(2**31)))
        for _ in range(_ATTEMPTS):
            point: Floats = np.asarray(optimizer.ask())
            new = state.options.noisy or state.tried(point, state.counts) is None
            if new and state.space.allowed(state.space.values(point)):
                return point, state.counts
        return state.space.sample(rng, 1)[0], state.counts

    def _optimizer(self, state: SearchView, seed: int) -> CMA:
        """Rebuilt from all results."""
        dimension = len(state.space.sample(np.random.default_rng(0), 1)[0])
        size = max(4, round(self.population * (4 + math.floor(3 * math.log(dimension)))))
        chance = np.random.default_rng([state.seed, 3])
        ended = sorted(
            (t for t in state.trials if t.stage == state.counts and (t.assessment is not None or t.status in _WITHOUT)),
            key=lambda trial: (trial.ended_s, trial.number),
        )
        optimizer = self._new(np.full(dimension, 0.5), seed, size)
        while len(ended) >= size:
            generation, ended = ended[:size], ended[size:]
            weights = chance.dirichlet(np.ones(max(1, len(state.objective.names))))
            order = _order(generation, weights)
            optimizer.tell([(generation[i].point, float(rank)) for rank, i in enumerate(order)])
            if optimizer.should_stop():
                size *= 2
                optimizer = self._new(chance.random(dimension), seed, size)
        return optimizer

    def _new(self, mean: Floats, seed: int, size: int) -> CMA:
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        return CMA(mean=mean, sigma=self.sigma, bounds=bounds, seed=seed, population_size=size)


_WITHOUT = ("infeasible", "stopped")
"""How trials without a result stand that say something of their points."""


def _order(trials: list[Any], weights: Floats) -> list[int]:
    """Numbers of trials, from the best to the worst."""
    known = [trial.assessment for trial in trials if trial.assessment is not None]
    losses = np.array([assessment.losses for assessment in known if assessment.feasible]).reshape(-1, len(weights))
    low, span = (losses.min(0), np.ptp(losses, axis=0)) if losses.size else (np.zeros(1), np.ones(1))

    def worth(i: int) -> tuple[int, float]:
        assessment = trials[i].assessment
        if assessment is None:
            return 2, 0.0
        if not assessment.feasible:
            return 1, -sum(min(margin, 0.0) for margin in assessment.margins)
        if not assessment.losses:
            return 0, 0.0
        if len(assessment.losses) == 1:
            return 0, assessment.losses[0]
        return 0, float(np.max(weights * (np.array(assessment.losses) - low) / np.where(span > 0.0, span, 1.0)))

    return sorted(range(len(trials)), key=worth)
