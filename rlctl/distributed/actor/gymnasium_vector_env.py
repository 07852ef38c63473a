"""A Gymnasium ``VectorEnv``, as twins of campaigns are, in the form that learners and actors step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.bundle.actions import action_heads
from rlctl.core.errors import EnvironmentFault
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Float32, Step, TransitionSpec
from rlctl.environments.campaign_vector_env import CampaignVectorEnv

NUMBER = (int, float, np.number, np.bool_)
"""Types of the infos that are metrics of an episode."""


class GymnasiumVectorEnv:
    """A ``VectorEnvironment`` around one of Gymnasium's with autoreset in the same step.

    Masks and privileged quantities come from ``infos["action_mask"]`` and ``infos["privileged"]``, [n, ...] each, where
    the first reset has them; durations from ``infos["duration_s"]``.

    Args:
        name: of the campaign, for messages.

    Raises:
        EnvironmentFault: observations or rewards are not finite.
    """

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv[Any, Any, Any],
        *,
        with_mask: bool = True,
        with_privileged: bool = True,
        discount_s: float | None = None,
        seed: int | None = None,
        name: str = "the environment",
    ) -> None:
        self.env, self.count = env, env.num_envs
        self._name, self._steps = name, 0
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self._discount_s, self._with_privileged = discount_s, with_privileged
        space = self.action_space
        self._first_choice = int(space.start) if isinstance(space, spaces.Discrete) else None
        self.heads = action_heads(space) if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else ()
        self._n_obs = int(np.prod(self.observation_space.shape or ()))
        self.failures: Mapping[str, int] = {}
        self.episodes = [0] * self.count
        self._returns = np.zeros(self.count)
        self._lengths = np.zeros(self.count, np.int64)
        self._observations: Float32 = np.zeros((self.count, 0), np.float32)
        # Only a reset shows whether there are masks, and how many privileged quantities.
        observations, infos = env.reset(seed=seed)
        self._n_mask = sum(self.heads) if with_mask and "action_mask" in infos else 0
        self._first: Float32 | None = self._flattened(observations, infos)
        n_action = len(self.heads) or int(np.prod(space.shape or (1,)))
        n_privileged = self._first.shape[1] - self._n_obs - self._n_mask
        self.transition_spec = TransitionSpec(self._n_obs, self._n_mask, n_privileged, n_action)

    def reset(self, seed: int | None = None) -> Float32:
        """Begin an episode in each; observations [n, width]."""
        first, self._first = self._first, None
        campaigns = self.env.unwrapped
        if any(self.episodes) and isinstance(campaigns, CampaignVectorEnv):
            first = None
            campaigns.begin_at(self.episodes)
        if first is not None and seed is None:
            return first
        observations, infos = self.env.reset(seed=seed)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self._flattened(observations, infos)

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply an action in each."""
        space = self.action_space
        actions = np.asarray(actions, space.dtype).reshape((self.count, *(space.shape or ())))
        if self._first_choice is not None:
            actions = actions + self._first_choice
        self._steps += 1
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        flattened = self._flattened(observations, infos)
        with np.errstate(over="ignore"):
            rewards = np.asarray(rewards, dtype=np.float32)
        self._require_finite("the reward", rewards)
        self._returns += rewards
        self._lengths += 1
        done = np.logical_or(terminated, truncated)
        ends: list[EpisodeEnd] = []
        if done.any():
            ends = [self._episode_end(int(i), infos) for i in np.flatnonzero(done)]
            self._returns[done] = 0.0
            self._lengths[done] = 0
        if self._discount_s is not None and "duration_s" in infos:
            durations = np.asarray(infos["duration_s"], np.float32) / np.float32(self._discount_s)
        else:
            durations = np.ones(self.count, np.float32)
        return Step(flattened, rewards, durations, np.asarray(terminated), np.asarray(truncated), ends)

    def save(self) -> bytes | None:
        """Complete state; None where the environment cannot be pickled."""
        return saved(self.env, self.episodes, self._returns, self._lengths, self._observations)

    def restore(self, state: bytes) -> Float32:
        """Continue from ``save``; observations [n, width]."""
        self.env.close()
        self.env, self.episodes, self._returns, self._lengths, self._observations = cloudpickle.loads(state)
        self._first = None
        return self._observations.copy()

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def _flattened(self, observations: Any, infos: dict[str, Any]) -> Float32:
        parts = [np.reshape(observations, (self.count, -1))]
        if self._n_mask:
            masks = np.asarray(infos.get("action_mask", np.ones((self.count, self._n_mask))), np.bool_)
            present = infos.get("_action_mask")
            parts.append(masks if present is None else masks | ~np.asarray(present)[:, None])
        if self._with_privileged and "privileged" in infos:
            parts.append(infos["privileged"])
        with np.errstate(over="ignore"):
            self._observations = np.concatenate(parts, axis=1, dtype=np.float32)
        self._require_finite("the observation", self._observations)
        return self._observations

    def _episode_end(self, i: int, infos: dict[str, Any]) -> EpisodeEnd:
        final = _info_of(infos.get("final_info", {}), i)
        mask = final.pop("action_mask", np.ones(self._n_mask))
        privileged = final.pop("privileged", ())
        parts = [infos["final_obs"][i]]
        parts += [mask] if self._n_mask else []
        parts += [privileged] if self.transition_spec.n_privileged else []
        last = np.concatenate([np.ravel(part) for part in parts], dtype=np.float32)
        self._require_finite("the last observation", last[None], i)
        metrics = {k: float(v) for k, v in final.items() if isinstance(v, NUMBER)}
        self.episodes[i] += 1
        return EpisodeEnd(i, last, float(self._returns[i]), int(self._lengths[i]), metrics)

    def _require_finite(self, what: str, numbers: Float32, first: int = 0) -> None:
        """Raise EnvironmentFault for numbers that would spoil all later learning."""
        fine = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
        if not fine.all():
            i = int(np.argmin(fine))
            bad = np.ravel(numbers[i])
            bad = bad[~np.isfinite(bad)]
            raise EnvironmentFault(
                f"{self._name}, environment {first + i + 1} of {self.count}, step {self._steps} of this training: "
                f"{what} has {bad[0]}, which nothing can be learned from",
                "not_finite",
            )


def saved(*parts: Any) -> bytes | None:
    """Parts of environments as bytes; None where they cannot be saved and restored."""
    try:
        data: bytes = cloudpickle.dumps(parts)
        cloudpickle.loads(data)
    except Exception:  # whatever an environment holds: sockets, processes, generators
        return None
    return data


def _info_of(infos: Any, i: int) -> dict[str, Any]:
    """Infos of environment ``i`` of a vector environment: from a dict of arrays, or from an array of dicts."""
    if not isinstance(infos, dict):
        return dict(infos[i] or {})
    return {
        key: _info_of(value, i) if isinstance(value, dict) else value[i]
        for key, value in infos.items()
        if not key.startswith("_") and np.all(infos.get(f"_{key}", np.ones(i + 1))[i])
    }
