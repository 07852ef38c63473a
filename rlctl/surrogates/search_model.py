"""What a search knows of points that it has not evaluated: loss, constraints, cost and chance of success.

Bayesian optimisation under constraints multiplies by the probability that they hold (Gardner et al. 2014), and divides
by the predicted cost (Snoek, Larochelle and Adams 2012, arXiv:1206.2944, section 3.2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from rlctl.surrogates.blas_threads import on_one_thread
from rlctl.surrogates.informed_output import InformedOutput
from rlctl.surrogates.learned_process import LearnedProcess
from rlctl.surrogates.output_model import OutputModel

Floats = NDArray[np.float64]

_FEWEST = 3
"""Evaluations from which on hyperparameters are optimized."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Results of ended evaluations.

    Attributes:
        x: features of points and stages, [n, features].
        losses: to be minimized, [n]; NaN where unknown. Shape [0]: nothing is minimized.
        margins: of constraints, not negative where they hold, [n, constraints]; NaN where unknown.
        succeeded: whether there is a result, [n].
        cost_x: features of points, stages and resources, [n, cost features].
        cost: node-seconds, [n]; NaN where unknown.
    """

    x: Floats
    losses: Floats
    margins: Floats
    succeeded: NDArray[np.bool_]
    cost_x: Floats
    cost: Floats


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of points, [m] each.

    Attributes:
        mean, deviation: of the loss, in the units of ``SearchModel.loss.warped``; 0 and 1 where nothing is minimized.
        log_feasible: logarithm of the probability that the evaluation succeeds and all constraints hold.
        log_success: likewise, that it succeeds.
    """

    mean: Floats
    deviation: Floats
    log_feasible: Floats
    log_success: Floats


@dataclass
class SearchModel:
    """Models of loss, constraints, success and cost.

    Attributes:
        groups: length scales of the features, see ``GaussianProcess``.
        cost_groups: likewise, of the features with resources.
        noisy: whether repeated evaluations differ.
        seed: of the choice of points where there are too many.
        prior: what earlier campaigns say of ``loss``, ``cost`` and ``success``; empty: nothing.
    """

    groups: NDArray[np.int64]
    cost_groups: NDArray[np.int64]
    noisy: bool = False
    seed: int = 0
    prior: Mapping[str, LearnedProcess] = field(default_factory=dict)
    loss: OutputModel | InformedOutput = field(init=False)
    cost: OutputModel | InformedOutput = field(init=False)

    def __post_init__(self) -> None:
        self.loss = self._informed("loss", OutputModel(self.groups, self.noisy))
        self.cost = self._informed("cost", OutputModel(self.cost_groups, noisy=True, warp=False))
        self._margins: list[OutputModel] = []
        self._success = self._informed("success", OutputModel(self.groups, noisy=True, warp=False))
        self._tuned = 0
        self.has_loss, self.has_cost, self._has_failures = (n in self.prior for n in ("loss", "cost", "success"))

    def _informed(self, output: str, plain: OutputModel) -> OutputModel | InformedOutput:
        """A model with what earlier campaigns say, if they say something."""
        if output not in self.prior:
            return plain
        groups = self.cost_groups if output == "cost" else self.groups
        return InformedOutput(self.prior[output], plain, groups, binary=output == "success")

    @property
    def prior_leads(self) -> bool:
        """Whether the loss is predicted with what earlier campaigns say."""
        return isinstance(self.loss, InformedOutput) and self.loss.leads

    @on_one_thread
    def learn(self, data: Evaluated, history: Callable[[int], Evaluated]) -> None:
        """Fit all models.

        Hyperparameters are optimized whenever there are a tenth more evaluations, and then for those: what is learned
        follows from the evaluations alone, whenever and however often it was asked for.

        Args:
            data: evaluations, in the order in which they ended.
            history: gives the first n of them; ``data`` itself, if that is what they are.
        """
        self._margins += [OutputModel(self.groups, self.noisy) for _ in data.margins.T[len(self._margins) :]]
        total, fitted = len(data.succeeded), set[int]()
        while (count := max(_FEWEST, self._tuned + 1 + self._tuned // 10)) <= total:
            self._tuned = count
            past = history(count)
            for number, (model, x, y) in enumerate(self._outputs(past)):
                if len(y):
                    model.tune(x, y, np.random.default_rng([self.seed, count]))
                    fitted |= {number} if past is data else set()
        self._has_failures = "success" in self.prior or not data.succeeded.all()
        outputs = list(self._outputs(data))
        known = [len(y) > 0 for _, _, y in outputs]
        self.has_loss, self.has_cost = known[0] or "loss" in self.prior, known[1] or "cost" in self.prior
        for number, (model, x, y) in enumerate(outputs):
            if len(y) and (number not in fitted or isinstance(model, InformedOutput)):
                model.fit(x, y, np.random.default_rng([self.seed, total]))

    def _outputs(self, data: Evaluated) -> Iterator[tuple[OutputModel | InformedOutput, Floats, Floats]]:
        """Each model, with its points and outputs."""
        known = np.isfinite(data.losses)
        yield self.loss, data.x[: len(known)][known], data.losses[known]
        known = np.isfinite(data.cost) & (data.cost > 0.0)
        yield self.cost, data.cost_x[known], np.log(data.cost[known])
        for model, margins in zip(self._margins, data.margins.T, strict=True):
            known = np.isfinite(margins)
            yield model, data.x[known], -margins[known]
        if "success" in self.prior or not data.succeeded.all():
            yield self._success, data.x, np.where(data.succeeded, 1.0, -1.0)

    @on_one_thread
    def believing(self, x: Floats) -> SearchModel:
        """The same, as if points that are being evaluated had ended as predicted."""
        if not len(x):
            return self
        more = copy.copy(self)
        if self.has_loss:
            more.loss = self.loss.believing(x)
        more._margins = [model.believing(x) for model in self._margins]
        return more

    @on_one_thread
    def predict(self, x: Floats) -> Prediction:
        """Loss and feasibility at features [m, features]."""
        mean, deviation = self.loss.predict(x) if self.has_loss else (np.zeros(len(x)), np.ones(len(x)))
        log_success = log_feasible = self.log_success(x)
        for model in self._margins:
            violation, uncertain = model.predict(x)
            log_feasible = log_feasible + log_ndtr((model.warped(0.0) - violation) / uncertain)
        return Prediction(mean, deviation, log_feasible, log_success)

    def log_cost(self, cost_x: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of the logarithm of node-seconds, [m] each; 0 and 1 before anything is known."""
        if not self.has_cost:
            return np.zeros(len(cost_x)), np.ones(len(cost_x))
        mean, deviation = self.cost.predict(cost_x)
        return self.cost.unwarped(mean), deviation * self.cost.unit

    def log_success(self, x: Floats) -> Floats:
        """Logarithm of the chance that an evaluation gives a result, [m].

        By least-squares classification (Rasmussen and Williams 2006, section 6.5).
        """
        if not self._has_failures:
            return np.zeros(len(x))
        mean, deviation = self._success.predict(x)
        return np.asarray(log_ndtr((mean - self._success.warped(0.0)) / np.hypot(deviation, self._success.noise)))
