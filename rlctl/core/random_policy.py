"""The policy ``random``: any allowed choice, with equal chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Decision, head_sizes

RANDOM = "random"


class Chance:
    """Draws from an action space; obeys masks, which discrete spaces have.

    What it draws depends on the seed of ``reset`` and the number of the decision alone, so that nothing need be kept.
    """

    def __init__(self, space: spaces.Space[Any], name: str = RANDOM) -> None:
        self.name, self._space, self._seed = name, space, 0

    def act(self, decision: Decision) -> Action:
        """Any allowed choice."""
        random = np.random.default_rng(np.random.SeedSequence([self._seed, decision.number]))
        if isinstance(self._space, spaces.Discrete | spaces.MultiDiscrete):
            return choose(random, decision.mask, head_sizes(self._space).tolist())
        self._space.seed(int(random.integers(2**31)))
        drawn: NDArray[Any] = self._space.sample()
        return drawn

    def reset(self, seed: int) -> None:
        """A new campaign begins."""
        self._seed = seed

    def state(self) -> Mapping[str, Any]:
        """The seed."""
        return {"seed": self._seed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with a saved seed."""
        self._seed = int(state["seed"])


def choose(random: np.random.Generator, mask: NDArray[np.bool_], heads: Sequence[int]) -> NDArray[np.int64]:
    """An allowed choice of each head; ``mask`` is flat over the heads."""
    parts = np.split(np.asarray(mask, np.bool_), np.cumsum(heads)[:-1])
    return np.array([random.choice(np.flatnonzero(part)) for part in parts], np.int64)
