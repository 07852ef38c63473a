"""Registers environments whose spaces are of all kinds; they need Gymnasium alone, and take no wrong action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
TWO = spaces.Discrete(2)
PARTS = {"b": spaces.Box(-1, 1, (2,)), "a": spaces.Discrete(3), "c": spaces.MultiBinary(2)}
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "dict": spaces.Dict(PARTS | {"d": spaces.MultiDiscrete([2, 3])}),
    "nested": spaces.Dict({"outer": spaces.Dict(PARTS), "pair": spaces.Tuple([TWO, BOX])}),
    "dict-with-picture": spaces.Dict({"seen": spaces.Box(0, 255, (8, 8, 3), np.uint8), "b": BOX}),
    "tuple": spaces.Tuple([TWO, BOX]),
    "discrete": spaces.Discrete(4),
    "discrete-from-2": spaces.Discrete(4, start=2),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary([2, 3]),
    "picture": spaces.Box(0, 255, (8, 9, 3), np.uint8),
    "stacked-pictures": spaces.Box(0, 255, (4, 10, 10), np.uint8),
    "matrix": spaces.Box(-1.0, 1.0, (4, 3), np.float64),
    "integers": spaces.Box(-5, 5, (3,), np.int64),
    "number": spaces.Box(-1.0, 1.0, (), np.float32),
    "unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float32),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "choice-from-3": spaces.Discrete(3, start=3),
    "one-choice": spaces.Discrete(1),
    "choices": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(3),
    "numbers": spaces.Box(np.array([0, -5], np.float32), np.array([100, 5], np.float32)),
    "numbers-float64": spaces.Box(-1, 1, (2,), np.float64),
}


class Any_(gymnasium.Env[Any, Any]):
    """Episodes of ten steps; a reward for the size of the action, so that there is something to learn."""

    def __init__(self, observation: str | None, action: str | None) -> None:
        self.observation_space = BOX if observation is None else OBSERVATIONS[observation]
        self.action_space = TWO if action is None else ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.age = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.age += 1
        return self.observation_space.sample(), float(np.sum(action)), self.age == 10, False, {}


for _name in OBSERVATIONS:
    gymnasium.register(f"See-{_name}-v0", entry_point=lambda name=_name: Any_(name, None), max_episode_steps=50)
for _name in ACTIONS:
    gymnasium.register(f"Do-{_name}-v0", entry_point=lambda name=_name: Any_(None, name), max_episode_steps=50)
