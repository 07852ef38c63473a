"""From Gymnasium's vector environments to Stable-Baselines3's, with mask and privileged sight in the observation."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlctl.saved_policy import action_heads

_NUMBER = (int, float, np.number, np.bool_)
Float32 = NDArray[np.float32]


class SB3VecEnv(VecEnv):
    """A Gymnasium ``VectorEnv`` (autoreset in the same step) as a ``VecEnv``.

    Observations are rows of [observation, mask, privileged]; the last two come from ``infos["action_mask"]`` and
    ``infos["privileged"]``, and are missing from the row where the environment does not give them (a missing mask
    allows everything; actions that are no choices have no mask). Infos of environments that go on are one shared empty
    dict: at hundreds of environments a dict for each would cost more than the network.

    Args:
        bootstrap: whether a truncated episode is worth what the critic thinks of its last state; otherwise nothing
            follows it.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], bootstrap: bool = True) -> None:
        self.env = env
        self._bootstrap = bootstrap
        space = env.single_action_space
        self._first_choice = int(space.start) if isinstance(space, spaces.Discrete) else None
        self.heads = action_heads(space) if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else ()
        self.n_obs = int(np.prod(env.single_observation_space.shape or ()))
        self.n_mask = sum(self.heads)
        # Only a reset tells how many privileged quantities there are.
        self._first: Float32 | None = self._begin(None)
        self.n_privileged = self._first.shape[1] - self.n_obs - self.n_mask
        row = spaces.Box(-np.inf, np.inf, (self._first.shape[1],), np.float32)
        super().__init__(env.num_envs, row, spaces.MultiDiscrete(list(self.heads)) if self.heads else space)
        self._goes_on: dict[str, Any] = {}
        self._infos = [self._goes_on] * env.num_envs
        self._actions: NDArray[Any] = np.zeros((env.num_envs, len(self.heads)), dtype=np.int64)
        self._began_s = time.monotonic()

    def reset(self) -> Float32:
        """Start all campaigns anew."""
        seed = self._seeds[0]
        first, self._first = self._first, None
        rows = first if first is not None and seed is None else self._begin(seed)
        self._reset_seeds()
        self._reset_options()
        return rows

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[Float32, Float32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Answer one decision in every environment."""
        actions = self._actions if self._first_choice is None else self._actions[:, 0] + self._first_choice
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        rows = self._rows(observations, infos)
        rewards = np.asarray(rewards, dtype=np.float32)
        dones = np.logical_or(terminated, truncated)
        self._returns += rewards
        self._lengths += 1
        out = self._infos
        if dones.any():
            out = list(out)
            for i in np.flatnonzero(dones):
                out[i] = self._end(int(i), infos, bool(self._bootstrap and truncated[i] and not terminated[i]))
            self._returns[dones] = 0.0
            self._lengths[dones] = 0
        return rows, rewards, dones, out

    def action_masks(self) -> NDArray[np.bool_]:
        """The mask of the open decision of each environment."""
        return self._masks

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the whole vector environment, once per environment."""
        owner = self if attr_name == "action_masks" else self.env
        return [getattr(owner, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the whole vector environment."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method; ``action_masks`` gives a row per environment, any other is called once for all."""
        chosen = self._chosen(indices)
        if method_name == "action_masks":
            return [self._masks[i] for i in chosen]
        return [getattr(self.env, method_name)(*args, **kwargs)] * len(chosen)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never: there are no single environments to wrap."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: int | Iterable[int] | None) -> list[int]:
        if indices is None:
            return list(range(self.env.num_envs))
        return [indices] if isinstance(indices, int) else list(indices)

    def _begin(self, seed: int | None) -> Float32:
        observations, infos = self.env.reset(seed=seed)
        self._returns = np.zeros(self.env.num_envs, dtype=np.float64)
        self._lengths = np.zeros(self.env.num_envs, dtype=np.int64)
        rows = self._rows(observations, infos)
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.env.num_envs)]
        return rows

    def _rows(self, observations: Float32, infos: dict[str, Any]) -> Float32:
        count = self.env.num_envs
        mask = infos.get("action_mask")
        self._masks = np.ones((count, self.n_mask), dtype=np.bool_) if mask is None else np.asarray(mask, np.bool_)
        parts = [np.reshape(observations, (count, -1)), self._masks]
        if "privileged" in infos:
            parts.append(infos["privileged"])
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _end(self, i: int, infos: dict[str, Any], truncated: bool) -> dict[str, Any]:
        """The info of an environment whose campaign ended in this step."""
        final = _entry(infos.get("final_info", {}), i)
        mask = final.pop("action_mask", np.ones(self.n_mask))
        parts = [np.ravel(infos["final_obs"][i]), np.ravel(mask)]
        privileged = final.pop("privileged", None)
        if self.n_privileged:
            parts.append(np.ravel(privileged))
        return {
            "terminal_observation": np.concatenate(parts, dtype=np.float32),
            "TimeLimit.truncated": truncated,
            "episode": {
                "r": float(self._returns[i]),
                "l": int(self._lengths[i]),
                "t": time.monotonic() - self._began_s,
            },
            "campaign": {k: float(v) for k, v in final.items() if isinstance(v, _NUMBER)},
        }


def _entry(infos: Any, i: int) -> dict[str, Any]:
    """What a vector environment's infos say of environment ``i``: from a dict of arrays, or from an array of dicts."""
    if not isinstance(infos, dict):
        return dict(infos[i] or {})
    return {
        key: _entry(value, i) if isinstance(value, dict) else value[i]
        for key, value in infos.items()
        if not key.startswith("_") and np.all(infos.get(f"_{key}", np.ones(i + 1))[i])
    }
