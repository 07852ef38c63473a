"""Environments that tell masks in all the ways there are; ``gymnasium.make("Masked-v0", told=...)``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "choice": spaces.Discrete(4),
    "from-2": spaces.Discrete(4, start=2),
    "from-minus-1": spaces.Discrete(4, start=-1),
    "heads": spaces.MultiDiscrete([3, 2]),
    "bits": spaces.MultiBinary(2),
    "numbers": spaces.Box(-1, 1, (2,), np.float32),
}


class Masked(gymnasium.Env[Any, Any]):
    """One choice of each head is allowed, drawn anew in each step and shown by nothing else; others are an error.

    Args:
        told: how: ``array``, ``list``, ``bools``, ``floats``, ``parts`` (an array for each head), ``method``, ``none``,
            or what is wrong with it.
        actions: which of ``ACTIONS``.
        length: of an episode.
        end: ``terminated`` or ``truncated``, or ``limit``: Gymnasium's TimeLimit ends it.
        wrong_at: step at which a wrong mask is told.
    """

    observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)

    def __init__(
        self,
        told: str = "array",
        actions: str = "choice",
        length: int = 5,
        end: str = "terminated",
        wrong_at: int = 3,
    ) -> None:
        self.action_space = ACTIONS[actions]
        self.told, self.length, self.end, self.wrong_at = told, length, end, wrong_at
        self.heads = {"heads": (3, 2), "bits": (2, 2), "numbers": (2,)}.get(actions, (4,))
        if told == "method":
            self.action_masks = lambda: self.mask.astype(bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return self._look()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        if self.told not in ("none", "late"):
            flat = np.zeros(sum(self.heads), np.int8)
            first = np.cumsum(self.heads) - self.heads
            flat[first + np.ravel(action) - getattr(self.action_space, "start", 0)] = 1
            assert (flat <= self.mask).all(), f"forbidden action {action} at step {self.age}"
        self.age += 1
        over = self.age >= self.length
        observation, info = self._look()
        return observation, float(self.age), over and self.end == "terminated", over and self.end == "truncated", info

    def _look(self) -> tuple[Any, dict[str, Any]]:
        picked = [int(self.np_random.integers(n)) for n in self.heads]
        parts = [np.eye(n, dtype=np.int8)[i] for n, i in zip(self.heads, picked, strict=True)]
        self.mask = np.concatenate(parts)
        observation = self.np_random.random(2, dtype=np.float32)
        told: Any = {
            "array": self.mask,
            "list": self.mask.tolist(),
            "bools": self.mask.astype(bool),
            "floats": self.mask.astype(np.float32),
            "parts": tuple(parts),
        }.get(self.told, self.mask)
        if self.told in ("method", "none") or (self.told == "late" and self.age < self.wrong_at):
            return observation, {"figure": float(self.age)}
        over = self.age >= self.length and self.end != "limit"
        if over:
            told = np.zeros_like(self.mask)  # no choice is left: as games have it
        elif self.age == self.wrong_at:
            told = {
                "nothing": np.zeros_like(self.mask),
                "short": self.mask[:-1],
                "nan": np.where(self.mask, 1.0, np.nan),
                "twos": 2 * self.mask,
                "words": ["yes"] * len(self.mask),
                "object": object(),
            }.get(self.told, told)
        return observation, {"action_mask": told, "figure": float(self.age)}


gymnasium.register("Masked-v0", entry_point=Masked, max_episode_steps=7)
