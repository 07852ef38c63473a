"""What rules for searches share: starting points, stages, resources, and when a run is stopped.

They answer with the named quantities ``evaluate``, ``stage``, ``ranks``, ``stop`` or ``wait``, and read the field
``state``, of which ``SearchView`` says what they use.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Decision

Floats = NDArray[np.float64]
Space = Mapping[str, tuple[Any, ...]]

_FEWEST = 4
"""Runs that must have ended before one is late."""


class SearchView(Protocol):
    """The state of a search, as far as these rules read it."""

    now_s: float
    seed: int
    counts: int
    stages: Sequence[str]
    resources: Sequence[Sequence[Any]]
    trials: Sequence[Any]
    running: Mapping[Any, Any]
    started: int
    starts: Sequence[Floats]
    space: Any
    options: Any
    objective: Any
    subject: Any
    prior: Mapping[str, Any]

    def fitting(self, stage: int) -> Sequence[Any]:
        """Resources of a stage for which there is room now."""

    def median_s(self, stage: int) -> float | None:
        """Median duration of a stage's runs."""

    def usual_s(self, trial: Any, informed: bool = True) -> float | None:
        """Seconds that a run takes about, by results or by earlier campaigns; None: nothing is known."""

    def tried(self, point: Floats, stage: int) -> Any:
        """The trial of a point; None: there is none."""

    def untried(self, rng: np.random.Generator) -> Floats | None:
        """A random point that was not evaluated yet; None: there is none."""

    def cost_of(self, point: Floats, stage: int, need: Any, informed: bool = True) -> float:
        """Logarithm of predicted node-seconds."""

    def seconds_of(self, point: Floats, stage: int, need: Any, informed: bool = True) -> tuple[float, float]:
        """Predicted seconds, and the deviation of their logarithm."""

    def advice(self, rng: np.random.Generator, weights: Sequence[float] | None = None, informed: bool = True) -> Any:
        """Candidates and predictions; ``informed``: by what earlier campaigns say, too."""

    def trusts_prior(self) -> bool:
        """Whether what earlier campaigns say of the loss is to be believed."""


class SearchRule(ABC):
    """A rule without memory: what it knows is in the state, and chance follows from the number of points.

    Args:
        patience: a run is stopped once it has taken so many times the median of its stage, and ``outlasts`` times its
            own prediction; 0: never.
        outlasts: see ``patience``.
        efficiency: least parallel efficiency, by the model of cost, of the resources that an evaluation gets.
        walltime: a run is started with a limit of so many times the time that it exceeds once in 40 times, by the
            model of cost; 0: with that of its program alone. A run that a limit has ended has failed, and counts so;
            ``patience`` stops late runs with all that is known then, so that limits are for schedulers that place by
            them.
        prior: whether models begin with what ``campaign.options.prior`` says, where there is one.
    """

    name: str
    SPACE: ClassVar[Space] = {"patience": (0.0, 10.0), "outlasts": (1.0, 4.0), "efficiency": (0.1, 1.0)}
    PATIENCE: ClassVar[float] = 0.0
    """Of the rule, unless it is given."""

    def __init__(
        self,
        patience: float | None = None,
        outlasts: float = 1.5,
        efficiency: float = 0.5,
        walltime: float = 0.0,
        prior: bool = True,
    ) -> None:
        if not isinstance(prior, bool):
            raise ValueError(f"prior is {prior!r}: it should be true or false")
        self.patience = self.PATIENCE if patience is None else patience
        self.outlasts, self.efficiency, self.walltime, self.prior = outlasts, efficiency, walltime, prior

    @abstractmethod
    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
        """Point and stage of the next evaluation, once the starting points have been evaluated; None: wait for results.

        It is not None where nothing runs.
        """

    def act(self, decision: Decision) -> Action:
        """See ``rlctl.core.policy.Policy``."""
        state: SearchView = decision.fields["state"]
        if state.subject is not None:
            return {"stop": state.subject.number} if self.gives_up(state, state.subject) else {"wait": True}
        rng = np.random.default_rng([state.seed, state.started])
        stage = state.counts
        if state.started < len(state.starts):
            point = state.starts[state.started]
        elif (proposed := self.propose(state, rng)) is None:
            return {"wait": True}
        else:
            point, stage = proposed
        if not state.options.noisy and state.tried(point, stage) is not None:
            other = state.untried(rng)
            if other is not None:
                point, stage = other, state.counts
        fitting = state.fitting(stage)
        if not fitting:
            if state.running:
                return {"wait": True}
            stage = next(other for other in range(len(state.stages)) if state.fitting(other))
            fitting = state.fitting(stage)
        need = self.resources(state, point, stage, fitting)
        answer = {
            "evaluate": state.space.values(point),
            "stage": state.stages[stage],
            "ranks": need.ranks,
            "cores": need.cores_per_rank,
            "gpus": need.gpus_per_rank,
        }
        if self.walltime > 0.0 and state.median_s(stage) is not None:
            usual_s, deviation = state.seconds_of(point, stage, need, self.prior)
            answer["walltime_s"] = self.walltime * usual_s * math.exp(2.0 * deviation)
        return answer

    def gives_up(self, state: SearchView, trial: Any) -> bool:
        """Whether to stop a run that takes long, or has reported progress."""
        usual_s, informed = state.usual_s(trial, self.prior), self.prior and "cost" in state.prior
        if self.patience <= 0.0 or usual_s is None or trial.started_s is None:
            return False
        ran_s = state.now_s - trial.started_s
        known = sum(t.stage == trial.stage and t.status in ("done", "infeasible") for t in state.trials)
        if ran_s < self.patience * usual_s or (known < _FEWEST and not informed):
            return False
        predicted_s, _ = state.seconds_of(trial.point, trial.stage, trial.resources, self.prior)
        return bool(ran_s >= self.outlasts * predicted_s)

    def resources(self, state: SearchView, point: Floats, stage: int, fitting: Sequence[Any]) -> Any:
        """The most resources that are used well enough; the first evaluations try them all."""
        ordered = sorted(fitting, key=lambda need: (need.cores, need.gpus))
        if len(ordered) < 2:
            return ordered[0]
        seen = [trial.resources for trial in state.trials if trial.stage == stage]
        new = [need for need in ordered if need not in seen]
        if new:
            return new[-1]
        costs = [state.cost_of(point, stage, need, self.prior) for need in ordered]
        good = [n for n, cost in zip(ordered, costs, strict=True) if math.exp(min(costs) - cost) >= self.efficiency]
        return good[-1]

    def reset(self, seed: int) -> None:
        """Nothing to forget."""
        return None

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
        return None
