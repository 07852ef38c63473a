"""Rules for searches that ask models what an evaluation is worth: Bayesian optimisation, and its cost-aware forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView, Space

Score = Callable[[Any, Floats, np.random.Generator], Floats]
"""Of candidates: advice, logarithm of predicted node-seconds, chance."""


class GpEi(SearchRule):
    """The greatest expected improvement (Jones, Schonlau and Welch 1998), under constraints that of a feasible one.

    Args:
        initial: points of a Sobol sequence that are evaluated first, in multiples of the number of parameters, plus 2.
    """

    name = "gp_ei"
    SPACE: ClassVar[Space] = {"initial": (0.0, 3.0), **SearchRule.SPACE}

    def __init__(self, initial: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.initial = initial

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The best candidate."""
        return best_candidate(
            state, rng, self.initial, lambda advice, cost, rng: advice.expected_improvement(), prior=self.prior
        )


class GpUcb(SearchRule):
    """The least lower confidence bound of the loss (Srinivas et al. 2010).

    Args:
        beta: deviations below the mean.
        initial: see ``GpEi``.
    """

    name = "gp_ucb"
    SPACE: ClassVar[Space] = {"beta": (0.5, 5.0), "initial": (0.0, 3.0), **SearchRule.SPACE}

    def __init__(self, beta: float = 2.0, initial: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.beta, self.initial = beta, initial

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The best candidate."""
        return best_candidate(
            state, rng, self.initial, lambda advice, cost, rng: advice.confidence_bound(self.beta), prior=self.prior
        )


class Thompson(SearchRule):
    """The best candidate of a function drawn from the posterior (Thompson 1933; Kandasamy et al. 2018, in parallel).

    Args:
        initial: see ``GpEi``.
    """

    name = "thompson"
    SPACE: ClassVar[Space] = {"initial": (0.0, 3.0), **SearchRule.SPACE}

    def __init__(self, initial: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.initial = initial

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The best candidate."""
        return best_candidate(state, rng, self.initial, lambda advice, cost, rng: advice.sampled(rng), prior=self.prior)


class EiPerSecond(SearchRule):
    """The greatest expected improvement for each predicted node-second (Snoek, Larochelle and Adams 2012).

    Args:
        initial: see ``GpEi``.
        thrift: power of the predicted node-seconds that the improvement is divided by.
    """

    name = "ei_per_second"
    SPACE: ClassVar[Space] = {"initial": (0.0, 3.0), "thrift": (0.3, 1.5), **SearchRule.SPACE}
    PATIENCE: ClassVar[float] = 2.9

    def __init__(self, initial: float = 1.0, thrift: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.initial, self.thrift = initial, thrift

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The best candidate."""

        def score(advice: Any, cost: Floats, rng: np.random.Generator) -> Floats:
            return np.asarray(advice.expected_improvement() - self.thrift * cost)

        return best_candidate(state, rng, self.initial, score, cheap=True, prior=self.prior)


class TargetPerSecond(SearchRule):
    """In turns, the greatest probability of reaching the target, and expected improvement, per predicted node-second.

    The probability alone leaves small minima early, but forgets costs and promising regions while the target is far:
    its logarithm differs so much between points that that of the cost hardly counts. The improvement alone stays where
    it is. Without a target there is the improvement only; where a condition is looked for, its probability.

    Args:
        initial: see ``GpEi``.
        thrift: power of the predicted node-seconds that the probability is divided by.
    """

    name = "target_per_second"
    SPACE: ClassVar[Space] = {"initial": (0.0, 3.0), "thrift": (0.3, 1.5), **SearchRule.SPACE}
    PATIENCE: ClassVar[float] = 2.9

    def __init__(self, initial: float = 1.0, thrift: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.initial, self.thrift = initial, thrift

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The best candidate."""

        def score(advice: Any, cost: Floats, rng: np.random.Generator) -> Floats:
            turn = advice.worth() if state.started % 2 else advice.expected_improvement()
            return np.asarray(turn - self.thrift * cost)

        return best_candidate(state, rng, self.initial, score, cheap=True, prior=self.prior)


def best_candidate(
    state: SearchView, rng: np.random.Generator, initial: float, score: Score, cheap: bool = False, prior: bool = True
) -> tuple[Floats, int]:
    """The candidate with the greatest score, and its stage; at first, points of a Sobol sequence.

    Where earlier campaigns say where to begin, and this one does not speak against them, there is no such sequence.

    Several objectives become one by random weights, drawn anew for each point (ParEGO, Knowles 2006).

    Args:
        initial: see ``GpEi``.
        cheap: whether cheaper stages are used where they tell more for their cost.
        prior: whether earlier campaigns are heard.
    """
    index, counts = state.started - len(state.starts), state.counts
    if index < 2 + initial * state.space.dimension and not (prior and state.trusts_prior()):
        # The cheapest stage shows the shape; one evaluation at the stage that counts, how the two differ.
        return state.space.spread(state.seed, index), 0 if cheap and index != 1 else counts
    several = len(state.objective.names)
    weights = rng.dirichlet(np.ones(several)).tolist() if several > 1 else None
    advice = state.advice(rng, weights, prior)
    costs: Mapping[int, Floats] = {
        stage: advice.log_cost(stage, (state.fitting(stage) or state.resources[stage])[0])
        for stage in (range(len(state.stages)) if cheap else (counts,))
    }
    i = int(np.argmax(score(advice, costs[counts], rng)))
    point = advice.points[i]
    if len(costs) == 1:
        return point, counts
    left = {s: float(cost[i]) for s, cost in costs.items() if s == counts or state.tried(point, s) is None}
    return point, advice.worthwhile_stage(i, left)
