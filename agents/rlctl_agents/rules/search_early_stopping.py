"""Rules for searches that stop runs by the progress that they report, in comparison with the others'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, ClassVar

import numpy as np

from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView, Space


class MedianPruning(SearchRule):
    """Stops a run whose best value so far is worse than the median of the others at the same report.

    On a Sobol sequence. Of the median rule (Golovin et al. 2017) it is the form of Optuna's ``MedianPruner``: the
    original takes the others' averages so far, and hardly stops a run whose values fall. The value that the program
    reports is to go where its objective is to go: down if that is minimized.

    Args:
        first: report at which a run is judged for the first time.
        others: runs that must have got as far.
    """

    name = "median_pruning"
    SPACE: ClassVar[Space] = {"first": (1, 20, "int"), "others": (1, 10, "int"), **SearchRule.SPACE}

    def __init__(self, first: float = 3, others: float = 3, **shared: Any) -> None:
        super().__init__(**shared)
        self.first, self.others = first, others

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The next point of a Sobol sequence."""
        return state.space.spread(state.seed, state.started - len(state.starts)), state.counts

    def gives_up(self, state: SearchView, trial: Any) -> bool:
        """Whether the run falls behind, or takes too long."""
        values = _losses(state, trial)
        reports = len(values)
        if reports >= self.first:
            others = [past[reports - 1] for past in _others(state, trial) if len(past) >= reports]
            if len(others) >= self.others and min(values) > median(others):
                return True
        return super().gives_up(state, trial)


class SuccessiveHalving(SearchRule):
    """Lets a run pass a rung only if it is among the best of those that have reached the rung before it.

    Asynchronous successive halving with stops in place of pauses (Li et al. 2020, arXiv:1810.05934), on a Sobol
    sequence. The value that the program reports is to go where its objective is to go: down if that is minimized.

    Args:
        first: reports up to the first rung.
        factor: reports of a rung over those of the rung before; one run in ``factor`` passes.
    """

    name = "successive_halving"
    SPACE: ClassVar[Space] = {"first": (1, 20, "int"), "factor": (2.0, 5.0), **SearchRule.SPACE}

    def __init__(self, first: float = 2, factor: float = 3.0, **shared: Any) -> None:
        super().__init__(**shared)
        if first < 1 or factor <= 1.0:
            raise ValueError("first should be 1 at least, and factor above 1")
        self.first, self.factor = first, factor

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The next point of a Sobol sequence."""
        return state.space.spread(state.seed, state.started - len(state.starts)), state.counts

    def gives_up(self, state: SearchView, trial: Any) -> bool:
        """Whether the run fails at its rung, or takes too long."""
        values = _losses(state, trial)
        if self._is_rung(len(values)):
            others = [past[len(values) - 1] for past in _others(state, trial) if len(past) >= len(values)]
            better = sum(other < values[-1] for other in others)
            if better >= math.ceil((len(others) + 1) / self.factor):
                return True
        return super().gives_up(state, trial)

    def _is_rung(self, reports: int) -> bool:
        rung = self.first
        while round(rung) < reports:
            rung *= self.factor
        return round(rung) == reports


def _losses(state: SearchView, trial: Any) -> list[float]:
    """What a run has reported, to be minimized."""
    sign = state.objective.signs[0] if state.objective.signs else 1.0
    return [sign * value for _, value in trial.progress]


def _others(state: SearchView, trial: Any) -> Sequence[list[float]]:
    return [_losses(state, t) for t in state.trials if t is not trial and t.stage == trial.stage and t.progress]
