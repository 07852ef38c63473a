"""Other action spaces for algorithms that cannot take one index per head."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


def _heads(env: gymnasium.Env[Any, Any]) -> NDArray[np.int64]:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.MultiDiscrete):
        raise TypeError(f"this wrapper needs an environment with a MultiDiscrete action space, not {space}")
    return np.asarray(space.nvec, np.int64)


class FlatActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """MultiDiscrete as one Discrete, for DQN: the indices are the digits of one number, the last head fastest.

    >>> from gymnasium.spaces import MultiDiscrete
    >>> class Two(gymnasium.Env):
    ...     action_space, observation_space = MultiDiscrete([3, 2]), MultiDiscrete([1])
    >>> FlatActions(Two()).action(5)
    array([2, 1])
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._nvec = _heads(env)
        self.action_space = gymnasium.spaces.Discrete(int(np.prod(self._nvec)))

    def action(self, action: Any) -> NDArray[np.int64]:
        """Indices of a number."""
        return np.array(np.unravel_index(int(action), tuple(self._nvec)), np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._told(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Go on."""
        *rest, info = self.env.step(self.action(action))
        return (*rest, self._told(info))

    def action_masks(self) -> NDArray[np.bool_]:
        """A number is allowed if each of its digits is."""
        flat: NDArray[np.bool_] = self.env.get_wrapper_attr("action_masks")()
        parts = np.split(flat, np.cumsum(self._nvec)[:-1])
        allowed = parts[0]
        for part in parts[1:]:
            allowed = np.logical_and.outer(allowed, part)
        return allowed.ravel()

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "action_mask": self.action_masks()} if "action_mask" in info else info


class BoxActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """MultiDiscrete as a Box in [-1, 1], for SAC and TD3: each number picks the bin of its head in which it lies.

    >>> from gymnasium.spaces import MultiDiscrete
    >>> class Two(gymnasium.Env):
    ...     action_space, observation_space = MultiDiscrete([3, 2]), MultiDiscrete([1])
    >>> BoxActions(Two()).action([-1.0, 1.0])
    array([0, 1])
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._nvec = _heads(env)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(self._nvec),), np.float32)

    def action(self, action: Any) -> NDArray[np.int64]:
        """Indices of a point; what lies outside counts as the nearest bin."""
        place = (np.asarray(action, np.float64) + 1.0) / 2.0 * self._nvec
        return np.clip(np.floor(np.nan_to_num(place)), 0, self._nvec - 1).astype(np.int64)
