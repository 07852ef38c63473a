"""What models advise: points that could be evaluated, and what each would be worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from rlctl.core.task import Resources
from rlctl.surrogates.acquisition import log_expected_improvement, log_probability_below, lower_confidence_bound
from rlctl.surrogates.search_model import Prediction, SearchModel
from rlctl_envs.search.parameters import Floats

Features = Callable[[Floats, int], Floats]
CostFeatures = Callable[[Floats, int, Resources], Floats]


NEAR, WIDTHS = 48, (0.2, 0.05, 0.01)
"""Candidates besides random ones: so many around the best one at each of these distances."""

LEAST_SUCCESS = 0.1
"""Chance of a result, as a share of the greatest one among the candidates, below which none is proposed."""

MOST_SAMPLED = 400
"""Candidates at which a function is drawn from the posterior, whose covariance grows with the square."""


class Advice:
    """Candidates for the next evaluation, with the predictions of models; what is pending counts as evaluated.

    Attributes:
        points: candidates, [m, parameters].
        best: least loss so far, in warped units; infinite: there is none.
        target: loss that reaches the goal, likewise; None: the goal is none.

    Args:
        model: fitted to the results.
        pending: features of runs that are open, and of points without a result.
        features, cost_features: of points at a stage, see ``SearchState``.
        counts: stage that counts.
        best, target: losses; infinite or None: unknown.
        good: where results differ when repeated, features of all feasible results at the stage that counts: the best
            one is that with the least predicted loss, not the luckiest.
    """

    def __init__(
        self,
        model: SearchModel,
        points: Floats,
        pending: Floats,
        features: Features,
        cost_features: CostFeatures,
        counts: int,
        best: float,
        target: float | None,
        good: Floats | None = None,
    ) -> None:
        self.points = points
        self._model, self._counts = model.believing(pending), counts
        self._features, self._cost_features = features, cost_features
        self._x = features(points, counts)
        self.best = float(model.loss.warped(best)) if model.has_loss and math.isfinite(best) else math.inf
        if good is not None and len(good) and model.has_loss:
            self.best = float(model.loss.predict(good)[0].min())
        self.target = float(model.loss.warped(target)) if model.has_loss and target is not None else None

    @cached_property
    def prediction(self) -> Prediction:
        """Of the candidates at the stage that counts; those that hardly give a result are not feasible.

        Elsewhere a small chance is weighed against what a result is worth. But models know nothing of losses where no
        evaluation gives one, and may expect the best there for ever.
        """
        predicted = self._model.predict(self._x)
        hopeless = predicted.log_success < predicted.log_success.max() + math.log(LEAST_SUCCESS)
        return replace(predicted, log_feasible=np.where(hopeless, -np.inf, predicted.log_feasible))

    def log_cost(self, stage: int, need: Resources) -> Floats:
        """Logarithm of the node-seconds that the candidates would take, [m]."""
        return self._model.log_cost(self._cost_features(self.points, stage, need))[0]

    def expected_improvement(self) -> Floats:
        """Logarithm of the expected feasible improvement, [m]; of feasibility, before there is a feasible result."""
        predicted = self.prediction
        if not math.isfinite(self.best):
            return predicted.log_feasible
        return predicted.log_feasible + log_expected_improvement(predicted.mean, predicted.deviation, self.best)

    def probability_of_target(self) -> Floats:
        """Logarithm of the probability of a feasible result that reaches the target, [m]."""
        predicted = self.prediction
        if self.target is None:
            return predicted.log_feasible
        return predicted.log_feasible + log_probability_below(predicted.mean, predicted.deviation, self.target)

    def worth(self) -> Floats:
        """Logarithm of the probability of reaching the target; of the expected improvement, where there is none."""
        if self.target is None or not math.isfinite(self.best):
            return self.expected_improvement()
        return self.probability_of_target()

    def confidence_bound(self, beta: float) -> Floats:
        """Minus the lower confidence bound of the loss, [m]; points that hardly are feasible come last."""
        predicted = self.prediction
        bound = lower_confidence_bound(predicted.mean, predicted.deviation, beta)
        return -bound + np.minimum(predicted.log_feasible - math.log(0.5), 0.0)

    def sampled(self, rng: np.random.Generator) -> Floats:
        """Minus a loss drawn from the posterior, [m]: its greatest value is Thompson sampling's choice."""
        x = self._x
        drawn = np.full(len(x), math.inf)
        some = rng.permutation(len(x))[:MOST_SAMPLED]
        drawn[some] = self._model.loss.sample(x[some], rng) if self._model.has_loss else 0.0
        return -drawn + np.minimum(self.prediction.log_feasible - math.log(0.5), 0.0)

    def worthwhile_stage(self, i: int, log_costs: Mapping[int, float]) -> int:
        """Stage at which evaluating candidate ``i`` tells most of its loss at the stage that counts, for its cost.

        That is, the square of the posterior correlation of the two, divided by the predicted cost: the share of the
        variance that the evaluation explains for each node-second.

        Args:
            log_costs: logarithm of node-seconds at each stage in question.
        """
        if not self._model.has_loss:
            return self._counts
        point, loss = self.points[i : i + 1], self._model.loss
        full = self._features(point, self._counts)[0]
        worth = {}
        for stage, cost in log_costs.items():
            share = 1.0 if stage == self._counts else loss.correlation(self._features(point, stage)[0], full) ** 2
            worth[stage] = math.log(max(share, 1e-12)) - cost
        return max(worth, key=lambda stage: worth[stage])
