"""An environment whose steps take drawn times, the same for every system: environment i's k-th step takes D[i, k]."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MEAN_S = 0.2
STEPS = 4096


def durations(environments: int, kind: str, mean_s: float = MEAN_S, seed: int = 0) -> NDArray[np.float64]:
    """Seconds, [environment, step]: ``lognormal`` with sigma 1, or ``constant``; the mean of all is ``mean_s``."""
    if kind == "constant":
        return np.full((environments, STEPS), mean_s)
    drawn = np.random.default_rng(seed).lognormal(0.0, 1.0, (environments, STEPS))
    return drawn * (mean_s / drawn.mean())


class Paced(gymnasium.Env[NDArray[np.float32], int]):
    """Sleeps through its steps. Four numbers are seen, two choices are offered, an episode is 200 steps."""

    observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, times_s: NDArray[np.float64]) -> None:
        self.times_s = times_s
        self.at = 0
        self._shown = np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Takes no time."""
        return self._shown, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes its time."""
        time.sleep(self.times_s[self.at % STEPS])
        self.at += 1
        return self._shown, 1.0, False, self.at % 200 == 0, {}
