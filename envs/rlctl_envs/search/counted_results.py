"""The results of a search that count, and what follows from them; made anew after each result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from rlctl_envs.search.objective import Assessment, mean, pareto_front
from rlctl_envs.search.trials import Trial


class CountedResults:
    """Results by point: its first trial, and the mean of all of its trials.

    Attributes:
        all: in the order of the points' first results.
        feasible: those that fulfil all constraints and conditions.
        of_this_search: number of points whose results were not all known before.
    """

    def __init__(self, points: Iterable[Sequence[Trial]]) -> None:
        self.all: list[tuple[Trial, Assessment]] = []
        self.of_this_search = 0
        for trials in points:
            assessments = [trial.assessment for trial in trials if trial.assessment is not None]
            self.all.append((trials[0], mean(assessments)))
            self.of_this_search += not all(trial.known for trial in trials)
        self.feasible = [(trial, assessment) for trial, assessment in self.all if assessment.feasible]

    @cached_property
    def best(self) -> tuple[Trial, Assessment] | None:
        """The feasible one with the least loss, the first objective first; None: there is none, or no objective."""
        with_loss = [pair for pair in self.feasible if pair[1].losses]
        return min(with_loss, key=lambda pair: pair[1].losses, default=None)

    @cached_property
    def front(self) -> list[Trial]:
        """Trials that no other one dominates."""
        if not self.feasible:
            return []
        on_front = pareto_front(np.array([assessment.losses for _, assessment in self.feasible]))
        return [trial for (trial, _), on in zip(self.feasible, on_front, strict=True) if on]

    @cached_property
    def since_improvement(self) -> int:
        """Results of this search that count since the newest that no earlier one was as good as."""
        best: list[tuple[float, ...]] = []
        since = 0
        for trial, assessment in self.all:
            since += not trial.known
            losses = assessment.losses or (-math.inf,)
            as_good = any(all(a <= b for a, b in zip(one, losses, strict=True)) for one in best)
            if assessment.feasible and (not as_good or not assessment.losses):
                best.append(losses)
                since = 0
        return since
