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


class SearchView(Protocol):
    """The state of a search, as far as these rules read it."""

    now_s: float
    seed: int
    counts: int
    stages: Sequence[str]
    trials: Sequence[Any]
    running: Mapping[Any, Any]
    starts: Sequence[Floats]
    space: Any
    options: Any
    objective: Any
    subject: Any

    def fitting(self, stage: int) -> Sequence[Any]:
        """Resources of a stage for which there is room now."""

    def median_s(self, stage: int) -> float | None:
        """Median duration of a stage's runs."""

    def tried(self, point: Floats, stage: int) -> Any:
        """The trial of a point; None: there is none."""

    def cost_of(self, point: Floats, stage: int, need: Any) -> float:
        """Logarithm of predicted node-seconds."""

    def advice(self, rng: np.random.Generator, weights: Sequence[float] | None = None) -> Any:
        """Candidates and predictions."""


class SearchRule(ABC):
    """A rule without memory: what it knows is in the state, and chance follows from the number of trials.

    Args:
        initial: evaluations before models are asked, in multiples of the number of parameters, plus two.
        patience: a run is stopped once it has taken so many times the median of its stage; 0: never.
        efficiency: least parallel efficiency, by the model of cost, of the resources that an evaluation gets.
    """

    name: str
    SPACE: ClassVar[Space] = {"initial": (0.0, 3.0), "patience": (0.0, 20.0), "efficiency": (0.1, 1.0)}

    def __init__(self, initial: float = 1.0, patience: float = 3.0, efficiency: float = 0.5) -> None:
        self.initial, self.patience, self.efficiency = initial, patience, efficiency

    @abstractmethod
    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """Point and stage of the next evaluation, once the initial ones have started."""

    def act(self, decision: Decision) -> Action:
        """See ``rlctl.core.policy.Policy``."""
        state: SearchView = decision.fields["state"]
        if state.subject is not None:
            return {"stop": state.subject.number} if self.gives_up(state, state.subject) else {"wait": True}
        rng = np.random.default_rng([state.seed, len(state.trials)])
        if len(state.trials) < len(state.starts):
            point, stage = state.starts[len(state.trials)], state.counts
        elif len(state.trials) < 2 + self.initial * len(state.space.names):
            point, stage = state.space.spread(state.seed, len(state.trials)), self.initial_stage(state)
        else:
            point, stage = self.propose(state, rng)
        if not state.fitting(stage):
            stage = next((other for other in range(len(state.stages)) if state.fitting(other)), stage)
        need = self.resources(state, point, stage, rng)
        return {
            "evaluate": state.space.values(point),
            "stage": state.stages[stage],
            "ranks": need.ranks,
            "cores": need.cores_per_rank,
            "gpus": need.gpus_per_rank,
        }

    def gives_up(self, state: SearchView, trial: Any) -> bool:
        """Whether to stop a run that takes long, or has reported progress."""
        usual_s = state.median_s(trial.stage)
        if self.patience <= 0.0 or usual_s is None or trial.started_s is None:
            return False
        return bool(state.now_s - trial.started_s >= self.patience * usual_s)

    def initial_stage(self, state: SearchView) -> int:
        """The first evaluations are cheap ones, but for one."""
        return state.counts if len(state.trials) == 1 else 0

    def resources(self, state: SearchView, point: Floats, stage: int, rng: np.random.Generator) -> Any:
        """The most resources that are used well enough."""
        fitting = sorted(state.fitting(stage), key=lambda need: (need.cores, need.gpus))
        if len(fitting) < 2:
            return fitting[0]
        costs = [float(state.cost_of(point, stage, need)) for need in fitting]
        good = [n for n, cost in zip(fitting, costs, strict=True) if math.exp(min(costs) - cost) >= self.efficiency]
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
