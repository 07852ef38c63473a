"""What evaluations on the twin give: the interface of invented and fitted problems, and the goals that they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlctl.core.task import Resources
from rlctl_envs.search.parameters import Floats


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What one evaluation gives.

    Attributes:
        seconds: how long it takes.
        failed: whether it gives nothing.
        outputs: results by name.
        losses, margins: what they are worth; None: the objective cannot be computed of them.
        reached: goals that it reaches, see ``Problem.goals``.
    """

    seconds: float
    failed: bool = False
    outputs: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[float] | None = None
    margins: Sequence[float] = ()
    reached: Sequence[bool] = ()


class Problem(Protocol):
    """A problem, the same for the same instance."""

    @property
    def unit(self) -> float:
        """Spread of the first objective."""

    def run(self, point: Floats, stage: int, need: Resources, rng: np.random.Generator) -> SimulatedRun:
        """An evaluation of a point; ``rng`` is its chance."""

    def hidden(self) -> Sequence[float]:
        """Nine quantities that policies do not know, each about from -1 to 1."""

    def shapes(self) -> Sequence[float]:
        """Further numbers that no policy may be shown."""


@dataclass(frozen=True, slots=True)
class Aims:
    """Goals of a search that has none: one, or one for each of several trade-offs between objectives.

    Attributes:
        directions: weights of the losses, [objectives], and the greatest weighted loss that reaches the goal.
    """

    directions: Sequence[tuple[Floats, float]]

    @classmethod
    def of(cls, losses: Floats, good: NDArray[np.bool_], hits: float) -> Aims:
        """Goals that a share of a sample reaches.

        Args:
            losses: of the sample, of one scale, [n, objectives].
            good: which of it are feasible, [n].
            hits: that share.
        """
        count = losses.shape[1]
        if not count:
            return cls(())
        able = losses[good] if good.any() else losses
        rank = min(max(1, round(hits * len(losses))), len(able)) - 1
        weights = (
            np.ones((1, 1)) if count == 1 else np.vstack([np.eye(count) * 0.6 + 0.4 / count, np.full(count, 1 / count)])
        )
        return cls([(one, float(np.sort((able * one).max(axis=1))[rank])) for one in weights])

    def reached(self, losses: Floats, feasible: bool) -> list[bool]:
        """Goals that losses [objectives] reach; without objectives, whether they are feasible."""
        return [feasible and float((losses * one).max()) <= most for one, most in self.directions] or [feasible]
