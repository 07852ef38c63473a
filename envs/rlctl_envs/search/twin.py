"""The twin's tasks: what each evaluation of a problem would give, and how long it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Failure
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.problem import Problem

MOST_REPORTS = 20


class SearchTwin:
    """The task model of a search; see ``rlctl.core.simulation.TaskModel``.

    Args:
        problem: what evaluations give.
        stages: names of the stages.
        sign: of the first objective: 1 where it is minimized.
        infeasible: whether evaluations that fail are recorded as infeasible; otherwise their tasks fail.
        report_s: seconds between two reports; None: programs report no progress.
    """

    def __init__(
        self,
        problem: Problem,
        space: Space,
        stages: Sequence[str],
        sign: float,
        infeasible: bool,
        report_s: float | None,
        seed: int,
    ) -> None:
        self.problem, self._space, self._stages, self._sign = problem, space, list(stages), sign
        self._infeasible, self._report_s, self._seed = infeasible, report_s, seed

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations, reports, and in ``values`` outputs, what they are worth, and which goals they reach."""
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        asked = launch.spec.parameters
        number, stage = int(asked["evaluation"]), self._stages.index(asked["stage"])
        rng = np.random.default_rng([self._seed, 5, number, launch.attempt])
        run = self.problem.run(self._space.point(asked["parameters"]), stage, launch.spec.resources, rng)
        if run.failed and self._infeasible:
            values = {"kind": "exit", "then": "infeasible", "message": "exit code 1", "attempts": 1}
            return Simulated(run.seconds, values)
        if run.failed:
            return Simulated(run.seconds, failure=Failure.EXIT, message="exit code 1")
        if run.losses is None:
            return Simulated(run.seconds, {"outputs": run.outputs})
        values = {"outputs": run.outputs, "losses": run.losses, "margins": run.margins, "reached": run.reached}
        return Simulated(run.seconds, values, progress=self._reports(run.losses, run.seconds, rng))

    def _reports(
        self, losses: Sequence[float], seconds: float, rng: np.random.Generator
    ) -> Sequence[tuple[float, Mapping[str, Any]]]:
        """Curves that approach the final value; what they begin with says little of it."""
        if self._report_s is None or not losses:
            return ()
        every_s, sign, unit = self._report_s, self._sign, self.problem.unit
        height, rate = unit * float(rng.uniform(0.5, 3.0)), float(rng.uniform(2.0, 6.0))
        times: Floats = np.arange(1.0, MOST_REPORTS + 1.0) * every_s
        times = times[times < seconds]
        curve = losses[0] + height * np.exp(-rate * times / seconds) + 0.02 * unit * rng.standard_normal(len(times))
        return [(float(t), {"progress": float(sign * value)}) for t, value in zip(times, curve, strict=True)]
