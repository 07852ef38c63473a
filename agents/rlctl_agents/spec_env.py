"""An environment of which an algorithm learns the spaces, and no more: its data come from elsewhere."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv


class SpecVecEnv(VecEnv):
    """One environment that cannot be stepped; ``reset`` gives zeros."""

    render_mode = None

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__(1, observation_space, action_space)

    def reset(self) -> np.ndarray[Any, Any]:
        """Zeros."""
        space = self.observation_space
        return np.zeros((1, *(space.shape or ())), space.dtype)

    def step_async(self, actions: np.ndarray[Any, Any]) -> NoReturn:
        """There is nothing to step."""
        raise NotImplementedError("actors step the environments; here are only their spaces")

    def step_wait(self) -> NoReturn:
        """There is nothing to step."""
        raise NotImplementedError("actors step the environments; here are only their spaces")

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Of the specification itself."""
        return [getattr(self, attr_name)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """There is no environment that could use it."""

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """There is no environment that could be asked."""
        raise NotImplementedError(f"actors hold the environments, {method_name} cannot be called here")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never."""
        return [False]
