"""State of a search: trials, machine, clock, and what models say of points that were not evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId
from rlctl.executors.pool import NodePool
from rlctl.surrogates.learned_process import LearnedProcess
from rlctl.surrogates.search_model import Evaluated, SearchModel
from rlctl_envs.search.advice import NEAR, WIDTHS, Advice
from rlctl_envs.search.candidates import CandidateTable
from rlctl_envs.search.evaluated_points import EvaluatedPoints, Space
from rlctl_envs.search.objective import SearchObjective, scalarized
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import RANDOM, Floats
from rlctl_envs.search.trials import Trial, TrialStatus

_LONGER = {TrialStatus.DONE: 1.0, TrialStatus.STOPPED: 2.0}
"""What models of cost believe, in multiples of the time that a run took: one that was stopped would have taken longer,
lest they learn from stops to stop; one without a result says nothing, lest quick failures look cheap."""

MOST_FAILED = 60
"""Points without a result, the newest ones, at which models believe their own predictions."""

FEWEST = 4
"""Results of a stage from which on their median says how long runs take."""

_GENEROUS = 1.5
"""Deviations above the mean that earlier campaigns let expect."""

MOST_ROWS = 2000
"""Rows of a table that are candidates for the next evaluation."""


class SearchState(EvaluatedPoints):
    """What rules and networks read.

    Attributes:
        stages: names of the stages, from cheap to expensive; the number of a trial's stage is its place here.
        resources: for each stage, what an evaluation may occupy.
        now_s, deadline_s: seconds since the campaign began; the end of the allocation.
        subject: the running trial that a decision is about; None: it is about what to start.
        walltimes: for each stage, seconds after which a run is stopped; None: never.
        starts: points that are to be evaluated before any other.
        prior: what earlier campaigns say, see ``SearchModel``; rules may ask without it.
    """

    def __init__(
        self,
        options: SearchOptions,
        space: Space,
        objective: SearchObjective,
        resources: Sequence[Sequence[Resources]],
        capacity: Capacity,
        walltimes: Sequence[float | None] = (),
        seed: int = 0,
        prior: Mapping[str, LearnedProcess] | None = None,
    ) -> None:
        super().__init__(options, space, objective, NodePool(capacity))
        self.resources = [list(choices) for choices in resources]
        self.stages, self.capacity = options.stage_names, capacity
        self.now_s, self.deadline_s = 0.0, math.inf
        self.subject: Trial | None = None
        self.starts = [space.point(values) for values in options.starts]
        self.seed = seed
        self.walltimes = [*walltimes] or [None] * len(self.stages)
        self.prior = prior or {}
        self._models: dict[bool, SearchModel] = {}
        self._expected_s: dict[int, float] = {}
        self._learned: dict[bool, int] = {}
        self._losses: list[float] = []
        self._good: Floats | None = None

    def extend(
        self,
        options: SearchOptions,
        resources: Sequence[Sequence[Resources]],
        walltimes: Sequence[float | None],
        capacity: Capacity,
        deadline_s: float,
    ) -> None:
        """Go on with other options, choices of resources, limits, and another machine."""
        self.options, self.walltimes, self.deadline_s = options, [*walltimes], deadline_s
        if capacity != self.capacity:
            self.capacity, self.pool = capacity, NodePool(capacity)
            for trial in self.running.values():
                if trial.allocation is not None:
                    trial.allocation = self.pool.take(trial.resources)
        self.resources = [list(choices) for choices in resources]
        self._models, self._learned, self.subject = {}, {}, None

    def start(
        self,
        point: Floats,
        stage: int,
        need: Resources,
        walltime_s: float | None = None,
        again: int | None = None,
    ) -> Trial:
        """Submit a trial of a point now; ``again``: the trial that it repeats."""
        number = len(self.trials)
        trial = Trial(
            number,
            point,
            self.key(point, stage),
            self.space.values(point),
            stage,
            need,
            TaskId(f"evaluation{number:05d}"),
            self.nodes(need),
            self.now_s,
            walltime_s=walltime_s,
            again=again,
        )
        self.add(trial)
        return trial

    # What can be done.

    @property
    def exhausted(self) -> bool:
        """Whether every point has been evaluated, or is being evaluated, at the stage that counts."""
        if self.options.noisy or math.isinf(self.space.finite):
            return False
        return sum(key[0] == self.counts for key in self._keys) >= self.space.finite

    @property
    def started(self) -> int:
        """Points that were started; neither repeats of an evaluation count nor those that were known."""
        return self.submitted // self.options.repeats

    def fitting(self, stage: int) -> list[Resources]:
        """Resources of a stage for which there is room now; none, if it would not end before the allocation does."""
        return self.room(stage) if self.in_time(stage, None) else []

    def room(self, stage: int) -> list[Resources]:
        """Resources of a stage that are free."""
        return [need for need in self.resources[stage] if sum(self.pool.room(need)) >= need.ranks]

    def in_time(self, stage: int, walltime_s: float | None) -> bool:
        """Whether a run would reach its walltime before the allocation ends."""
        limit_s = self.walltimes[stage] if walltime_s is None else walltime_s
        return self.options.start_late or limit_s is None or self.now_s + limit_s <= self.deadline_s

    def untried(self, rng: np.random.Generator) -> Floats | None:
        """A random point that was not evaluated yet at the stage that counts; None: there is none."""
        points = self.space.sample(rng, 20)
        if self.options.noisy:
            return np.asarray(points[0])
        new = self._new(points)
        if not len(new):
            new = self._new(self.space.all_points())
        return np.asarray(new[int(rng.integers(len(new)))]) if len(new) else None

    def were_tried(self, points: Floats, stage: int) -> NDArray[np.bool_]:
        """For each point, whether ``tried`` finds a trial."""
        return np.array([(stage, *point) in self._keys for point in self.space.identities(points)], np.bool_)

    def _new(self, points: Floats) -> Floats:
        """Those that were not evaluated yet at the stage that counts."""
        return np.asarray(points[~self.were_tried(points, self.counts)])

    def nodes(self, need: Resources) -> float:
        """Share of the machine that resources take, in nodes."""
        nodes = self.capacity.nodes
        cores = need.cores * nodes / max(1, self.capacity.total_cores)
        gpus = sum(kind.nodes * kind.gpus for kind in self.capacity.kinds)
        return max(cores, need.gpus * nodes / gpus if gpus else 0.0)

    # What models say.

    def model(self, weights: Sequence[float] | None = None, informed: bool = True) -> SearchModel:
        """Models of loss, constraints and cost, fitted to all results so far.

        Args:
            weights: of the objectives, where there are several; None: equal ones.
            informed: whether they begin with ``prior``.
        """
        informed = informed and bool(self.prior)
        if informed not in self._models:
            groups, cost_groups = self.groups
            prior = self.prior if informed else {}
            self._models[informed] = SearchModel(groups, cost_groups, self.inexact, self.seed, prior)
        count, weighted = len(self.trials) - len(self.running), weights is not None and len(self.objective.names) > 1
        if count != self._learned.get(informed, 0) or weighted:
            self._learned[informed] = count
            ended = [trial for trial in self.trials if trial.ended_s is not None]
            ended.sort(key=lambda trial: (trial.ended_s or 0.0, trial.number))
            evaluated = self._evaluated(ended, weights)
            counting = [
                trial.stage == self.counts and trial.assessment is not None and trial.assessment.feasible
                for trial in ended
            ]
            self._losses = evaluated.losses[counting].tolist() if len(evaluated.losses) else []
            self._good = evaluated.x[counting] if self.options.noisy and len(evaluated.x) else None

            def history(first: int) -> Evaluated:
                return evaluated if first == len(ended) and not weighted else self._evaluated(ended[:first], None)

            self._models[informed].learn(evaluated, history)
        return self._models[informed]

    @property
    def inexact(self) -> bool:
        """Whether results differ at equal features: those of candidates do not say all of them."""
        return self.options.noisy or isinstance(self.space, CandidateTable)

    @property
    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Length scales of ``features`` and of ``cost_features``, see ``GaussianProcess``."""
        groups = self.space.groups
        stage_groups = np.r_[groups, np.full(len(self.stages) if len(self.stages) > 1 else 0, self._next_group(groups))]
        resource = np.full(int(self._several), self._next_group(stage_groups))
        return stage_groups, np.r_[stage_groups, resource]

    def advice(self, rng: np.random.Generator, weights: Sequence[float] | None = None, informed: bool = True) -> Advice:
        """Candidates and predictions for the next evaluation.

        Args:
            rng: draws the candidates.
            weights: of the objectives, where there are several; None: equal ones.
            informed: whether models begin with ``prior``.
        """
        model, until = self.model(weights, informed), self.options.until
        single = len(self.objective.names) == 1
        losses = self._losses
        return Advice(
            model,
            self.candidates(rng),
            self.pending(),
            self.features,
            self.cost_features,
            self.counts,
            best=min(losses, default=math.inf),
            target=self.objective.signs[0] * until.value if single and until.value is not None else None,
            good=self._good,
        )

    def trusts_prior(self) -> bool:
        """Whether earlier campaigns say more of the loss than the results of this one do without them."""
        return self.model().prior_leads

    def candidates(self, rng: np.random.Generator) -> Floats:
        """Points that were not evaluated yet: random ones, some near the best, and those of cheaper stages."""
        best = self.best or (self.front[int(rng.integers(len(self.front)))] if self.front else None)
        near = [self.space.near(best.point, width, rng, NEAR) for width in WIDTHS] if best is not None else []
        cheap = [trial.point for trial in self.trials if trial.stage != self.counts and trial.assessment is not None]
        count = MOST_ROWS if isinstance(self.space, CandidateTable) else RANDOM
        points = np.vstack([self.space.sample(rng, count), *near, *cheap])
        if self.options.noisy:
            return points
        new = self._new(points)
        if not len(new):
            left = self.untried(rng)
            return points[:1] if left is None else left[None]
        return new

    def cost_of(self, point: Floats, stage: int, need: Resources, informed: bool = True) -> float:
        """Logarithm of the node-seconds that an evaluation is predicted to take."""
        return float(self.model(informed=informed).log_cost(self.cost_features(point[None], stage, need))[0][0])

    def seconds_of(self, point: Floats, stage: int, need: Resources, informed: bool = True) -> tuple[float, float]:
        """Predicted seconds of an evaluation, and the standard deviation of their logarithm."""
        mean, deviation = self.model(informed=informed).log_cost(self.cost_features(point[None], stage, need))
        return math.exp(float(mean[0])) / max(self.nodes(need), 1e-9), float(deviation[0])

    def usual_s(self, trial: Trial, informed: bool = True) -> float | None:
        """Seconds that a run takes about: the median of its stage; None: nothing is known.

        Before there are ``FEWEST`` results, with ``informed``, what earlier campaigns let expect, generously.
        """
        if not informed or "cost" not in self.prior or len(self._seconds[trial.stage]) >= FEWEST:
            return self.median_s(trial.stage)
        if trial.number not in self._expected_s:
            model = SearchModel(*self.groups, self.inexact, self.seed, self.prior)
            mean, deviation = model.log_cost(self.cost_features(trial.point[None], trial.stage, trial.resources))
            most = math.exp(float(mean[0] + _GENEROUS * deviation[0]))
            self._expected_s[trial.number] = most / max(self.nodes(trial.resources), 1e-9)
        return self._expected_s[trial.number]

    def features(self, points: Floats, stage: int) -> Floats:
        """Of points at a stage, for models, [points, features]."""
        x = self.space.features(points)
        if len(self.stages) == 1:
            return x
        return np.hstack([x, np.tile(np.eye(len(self.stages))[stage], (len(x), 1))])

    def cost_features(self, points: Floats, stage: int, need: Resources) -> Floats:
        """Likewise, with resources, for models of cost."""
        x = self.features(points, stage)
        if not self._several:
            return x
        return np.hstack([x, np.full((len(x), 1), 0.25 * math.log2(max(self.nodes(need), 1e-9)))])

    @property
    def _several(self) -> bool:
        return any(len(choices) > 1 for choices in self.resources)

    def pending(self) -> Floats:
        """Features of the trials that run, and of points that gave no result: nothing is to be learned there."""
        failed = [trial for trial in self.trials if trial.ended_s is not None and trial.assessment is None]
        return self._trial_features([*self.running.values(), *failed[-MOST_FAILED:]])

    def _evaluated(self, ended: Sequence[Trial], weights: Sequence[float] | None) -> Evaluated:
        count, k = len(ended), len(self.objective.names)
        losses, margins = np.full((count, k), np.nan), np.full((count, self.objective.conditions), np.nan)
        for i, trial in enumerate(ended):
            if trial.assessment is not None:
                losses[i], margins[i] = trial.assessment.losses, trial.assessment.margins
        single = losses[:, 0] if k else np.zeros(0)
        known = np.isfinite(losses).all(axis=1)
        if k > 1 and known.any():
            single[known] = scalarized(losses[known], weights or [1.0 / k] * k)
        x = self._trial_features(ended)
        sizes = np.array([0.25 * math.log2(max(trial.nodes, 1e-9)) for trial in ended])
        return Evaluated(
            x=x,
            losses=single,
            margins=margins,
            succeeded=np.array([trial.assessment is not None for trial in ended], np.bool_),
            cost_x=np.hstack([x, sizes[:, None]]) if self._several else x,
            cost=np.array([(trial.node_seconds or math.nan) * _LONGER.get(trial.status, math.nan) for trial in ended]),
        )

    def _trial_features(self, trials: Sequence[Trial]) -> Floats:
        if not trials:
            return np.zeros((0, 0))
        x = self.space.features(np.array([trial.point for trial in trials]))
        if len(self.stages) == 1:
            return x
        return np.hstack([x, np.eye(len(self.stages))[[trial.stage for trial in trials]]])

    @staticmethod
    def _next_group(groups: Any) -> int:
        return int(max(groups, default=-1)) + 1
