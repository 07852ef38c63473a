"""The twin's tasks, drawn from recorded segments.

Instances weigh the records differently (Rubin 1981, the Bayesian bootstrap), so that a policy is trained for what the
records leave open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Failure
from rlctl_envs.segments.recorded_chains import Floats, RecordedSegments


class RecordedTwin:
    """The task model of a campaign of segments; see ``rlctl.core.simulation.TaskModel``.

    Args:
        records: what segments have done.
    """

    def __init__(self, records: RecordedSegments, seed: int) -> None:
        self._records = records
        self._rng = np.random.default_rng([seed, 9])
        self._weights = np.random.default_rng([seed, 10]).exponential(size=len(records))
        self._files: dict[int, Floats] = {}

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations and outputs."""
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        asked, rng, records = launch.spec.parameters, self._rng, self._records
        values, length = [asked["controls"][name] for name in records.controls], asked["length"]
        seconds = float(rng.choice(records.durations(asked["from"] is None, length, launch.spec.resources.cores)))
        if rng.random() < records.failing:
            return Simulated(seconds * rng.random(), failure=Failure.SIGNAL, message="killed by SIGKILL")
        before = np.full(len(records.results), np.nan) if asked["from"] is None else self._files[asked["from"]]
        near, closeness = records.alike(before, values, length)
        chances = self._weights[near] * closeness
        chosen = int(near[np.searchsorted(np.cumsum(chances), rng.random() * chances.sum())])
        if not records.good[chosen]:
            return Simulated(seconds * rng.random(), failure=Failure.EXIT, message="exit code 1")
        after = records.after_like(chosen, before, length)
        self._files[asked["evaluation"]] = after
        return Simulated(seconds, {"outputs": dict(zip(records.results, after.tolist(), strict=True))})
