"""Rules for searches of few points whose evaluations are noisy: each point is tried again and again, as in a bandit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView, Space


@dataclass(frozen=True)
class Arms:
    """What is known of each point of a search.

    Attributes:
        points: all of them, [n, parameters].
        tried: evaluations that were started, [n]; those that run count, lest several at a time are the same.
        ended: evaluations that have ended, [n].
        mean: of the first objective's losses, [n]; infinite where none has ended.
        deviation: sample standard deviation of the losses, [n]; where there are fewer than two, that of all points.
    """

    points: Floats
    tried: NDArray[np.int64]
    ended: NDArray[np.int64]
    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, state: SearchView, logarithm: bool = False) -> Arms:
        """Read the trials of the stage that counts, see ``known``.

        Raises:
            ValueError: points are too many to list, or a loss has no logarithm.
        """
        points: Floats = state.space.all_points()
        if not len(points):
            raise ValueError("rules that repeat evaluations need a search of few points: candidates, or choices")
        numbers = {identity: i for i, identity in enumerate(state.space.identities(points))}
        trials = [trial for trial in state.trials if trial.stage == state.counts]
        ended = [trial for trial in trials if trial.ended_s is not None]
        tried = np.bincount([numbers[trial.key[1:]] for trial in trials], minlength=len(points))
        places = np.array([numbers[trial.key[1:]] for trial in ended], np.int64)
        return cls.known(points, tried, places, np.array([_loss(trial) for trial in ended]), logarithm)

    @classmethod
    def known(
        cls, points: Floats, tried: NDArray[np.int64], places: NDArray[np.int64], losses: Floats, logarithm: bool
    ) -> Arms:
        """Of evaluations that have ended.

        Args:
            points, tried: see ``Arms``.
            places: numbers of the points, [evaluations].
            losses: likewise; infinite ones, of failures, count as the greatest of the others.
            logarithm: read the logarithms of the losses.

        Raises:
            ValueError: a loss has no logarithm.
        """
        usable = np.isfinite(losses)
        losses = np.minimum(losses, losses[usable].max() if usable.any() else 1.0)
        if logarithm and not (losses > 0.0).all():
            raise ValueError("logarithm needs an objective that is positive, and minimized")
        losses = np.log(losses) if logarithm else losses
        ended = np.bincount(places, minlength=len(points))
        mean = np.where(ended > 0, np.bincount(places, losses, len(points)) / np.maximum(ended, 1), math.inf)
        squares = np.bincount(places, (losses - mean[places]) ** 2, len(points))
        several = ended > 1
        variance = squares / np.maximum(ended - 1, 1)
        common = float(variance[several].mean()) if several.any() else 0.0
        return cls(points, tried, ended, mean, np.sqrt(np.where(several, variance, common)))

    def fewest(self, least: float) -> int | None:
        """The point with the fewest evaluations, the first one in the order of the table, if these are too few."""
        place = int(np.argmin(self.tried))
        return place if self.tried[place] < least else None


def _loss(trial: Any) -> float:
    """Of the first objective; infinite: it failed, or fulfils not all constraints."""
    found = trial.assessment
    return float(found.losses[0]) if found is not None and found.feasible and found.losses else math.inf


class RepeatingRule(Protocol):
    """Evaluates each point so often first, then chooses by what is known of all.

    Attributes:
        trials: evaluations of each point that come first.
        logarithm: whether losses are compared by their logarithms, for durations and the like: a few slow runs, or
            points that are slower by far, then hide less.
    """

    trials: float
    logarithm: bool

    def choose(self, arms: Arms, rng: np.random.Generator) -> int:
        """The number of a point, each of which has been evaluated."""


def next_place(rule: RepeatingRule, arms: Arms, rng: np.random.Generator) -> int | None:
    """The number of a point with too few evaluations, or that which the rule chooses; None: results are awaited."""
    place = arms.fewest(round(rule.trials))
    return rule.choose(arms, rng) if place is None and arms.ended.all() else place


def _proposed(rule: RepeatingRule, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
    arms = Arms.of(state, rule.logarithm)
    place = next_place(rule, arms, rng)
    return None if place is None else (arms.points[place], state.counts)


def _checked(logarithm: bool) -> bool:
    if not isinstance(logarithm, bool):
        raise ValueError(f"logarithm is {logarithm!r}: it should be true or false")
    return logarithm


class ExploreThenCommit(SearchRule):
    """The point with the least mean, but first any with fewer than five evaluations (Kunkel et al. 2014, SIOX).

    Args:
        trials, logarithm: see ``RepeatingRule``.
    """

    name = "explore_then_commit"
    SPACE: ClassVar[Space] = {"trials": (1.0, 8.0)}

    def __init__(self, trials: float = 5.0, logarithm: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        self.trials, self.logarithm = trials, _checked(logarithm)

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
        """See ``next_place``."""
        return _proposed(self, state, rng)

    def choose(self, arms: Arms, rng: np.random.Generator) -> int:
        """The least mean."""
        return int(np.argmin(arms.mean))


class Ucb(SearchRule):
    """The least lower confidence bound of the mean, for normal losses of unknown variance (after Auer et al. 2002).

    Args:
        width: of the bound, in ``sqrt(log(evaluations) / evaluations of the point)`` standard deviations.
        trials, logarithm: see ``RepeatingRule``.
    """

    name = "ucb"
    SPACE: ClassVar[Space] = {"width": (0.1, 4.0), "trials": (1.0, 8.0)}

    def __init__(self, width: float = 1.0, trials: float = 2.0, logarithm: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        self.width, self.trials, self.logarithm = width, trials, _checked(logarithm)

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
        """See ``next_place``."""
        return _proposed(self, state, rng)

    def choose(self, arms: Arms, rng: np.random.Generator) -> int:
        """The least bound."""
        total = max(2.0, float(arms.ended.sum()))
        return int(np.argmin(arms.mean - self.width * arms.deviation * np.sqrt(math.log(total) / arms.ended)))


class NormalThompson(SearchRule):
    """The least of means that are drawn from their posteriors, of normal losses with unknown mean and variance.

    The prior is uniform in mean and standard deviation (Honda and Takemura 2014, with alpha = -1/2), so that means have
    Student's t distributions with n - 2 degrees of freedom.

    Args:
        width: factor of the posteriors' widths; 1: as the theory has it.
        trials, logarithm: see ``RepeatingRule``; at least 3 trials.
    """

    name = "normal_thompson"
    SPACE: ClassVar[Space] = {"width": (0.1, 2.0), "trials": (3.0, 8.0)}

    def __init__(self, width: float = 1.0, trials: float = 3.0, logarithm: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        if trials < 3.0:
            raise ValueError(f"trials is {trials:g}: a posterior needs three")
        self.width, self.trials, self.logarithm = width, trials, _checked(logarithm)

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
        """See ``next_place``."""
        return _proposed(self, state, rng)

    def choose(self, arms: Arms, rng: np.random.Generator) -> int:
        """The least draw."""
        freedom = np.maximum(arms.ended - 2.0, 1.0)  # several at a time can be chosen before all three have ended
        scale = arms.deviation * np.sqrt(np.maximum(arms.ended - 1.0, 1.0) / (arms.ended * freedom))
        return int(np.argmin(arms.mean + self.width * scale * rng.standard_t(freedom)))


class DefaultSetting(SearchRule):
    """Always the same point: the first of ``starts``, or the first of the table. What others are compared with."""

    name = "default_setting"

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """The first point."""
        points = [*state.starts[:1], *state.space.all_points()[:1], *state.space.sample(rng, 1)]
        return points[0], state.counts
