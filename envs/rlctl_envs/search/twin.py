"""The twin's tasks: what each evaluation of a synthetic problem would give, and how long it would take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Failure, Resources
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.synthetic_problem import SyntheticProblem

MOST_REPORTS = 20


class SearchTwin:
    """The task model of a search; see ``rlctl.core.simulation.TaskModel``.

    Args:
        problem: what evaluations give.
        stages: names of the stages.
        counts: number of the stage that counts.
        objectives: the objectives' texts; results of these names get their values.
        infeasible: whether evaluations that fail are recorded as infeasible; otherwise their tasks fail.
        usual_s: for each stage, the median duration of the stage that counts.
        every_s: seconds between two reports; None: programs report no progress.
    """

    def __init__(
        self,
        problem: SyntheticProblem,
        space: Space,
        stages: Sequence[str],
        counts: int,
        objectives: Sequence[tuple[str, float]],
        infeasible: bool,
        usual_s: float,
        every_s: float | None,
        seed: int,
    ) -> None:
        self.problem, self._space, self._stages, self._counts = problem, space, list(stages), counts
        self._objectives, self._infeasible, self._usual_s = objectives, infeasible, usual_s
        self._every_s, self._seed = every_s, seed

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations, reports, and in ``values`` outputs, what they are worth, and which goals they reach."""
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        asked = launch.spec.parameters
        number, stage = int(asked["evaluation"]), self._stages.index(asked["stage"])
        rng = np.random.default_rng([self._seed, 5, number, launch.attempt])
        x = self._space.features(self._space.point(asked["parameters"])[None])
        problem = self.problem
        seconds = self._usual_s * problem.costs[stage] * math.exp(problem.log_seconds(x) + 0.05 * rng.standard_normal())
        seconds /= self._speed(launch.spec.resources)
        if problem.fails(x)[0]:
            ran_s = seconds * float(rng.uniform(0.05, 1.0))
            if self._infeasible:
                return Simulated(ran_s, {"kind": "exit", "then": "infeasible", "message": "exit code 1", "attempts": 1})
            return Simulated(ran_s, failure=Failure.EXIT, message="exit code 1")
        if rng.random() < problem.stuck:
            seconds *= float(np.exp(rng.uniform(math.log(5.0), math.log(40.0))))
        losses = problem.reported_losses(x, stage, rng)
        reached = problem.reached(x)
        values = {
            "outputs": {name: sign * loss for (name, sign), loss in zip(self._objectives, losses, strict=True)},
            "losses": losses,
            "margins": problem.margins(x)[0].tolist(),
            "reached": reached if stage == self._counts else [False] * len(reached),
        }
        return Simulated(seconds, values, progress=self._reports(losses, seconds, rng))

    def _speed(self, need: Resources) -> float:
        """How much faster than on one core an evaluation is (Amdahl 1967)."""
        serial = self.problem.serial
        scaled = 1.0 / (serial + (1.0 - serial) / need.cores)
        return scaled * (self.problem.gpu_speed if need.gpus > 0.0 else 1.0)

    def _reports(
        self, losses: Sequence[float], seconds: float, rng: np.random.Generator
    ) -> Sequence[tuple[float, Mapping[str, Any]]]:
        """Curves that approach the final value; what they begin with says little of it."""
        if self._every_s is None or not losses:
            return ()
        every_s = max(self._every_s, self._usual_s / 10.0)
        sign, unit = self._objectives[0][1], float(self.problem.units[0])
        height, rate = unit * float(rng.uniform(0.5, 3.0)), float(rng.uniform(2.0, 6.0))
        times: Floats = np.arange(1.0, MOST_REPORTS + 1.0) * every_s
        times = times[times < seconds]
        curve = losses[0] + height * np.exp(-rate * times / seconds) + 0.02 * unit * rng.standard_normal(len(times))
        return [(float(t), {"progress": float(sign * value)}) for t, value in zip(times, curve, strict=True)]
