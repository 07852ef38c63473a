"""A replay buffer that takes whole chunks, and discounts by how long a transition took."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from rlctl.distributed.comm.chunk import Chunk, flat_transitions


class TimedReplayBuffer(ReplayBuffer):
    """Discounts are ``gamma ** duration`` (a semi-Markov decision process; Sutton, Precup, Singh 1999, section 3).

    Args:
        gamma: discount of a duration of 1.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        gamma: float = 0.99,
    ) -> None:
        super().__init__(
            buffer_size, observation_space, action_space, device, n_envs, False, handle_timeout_termination
        )
        self.gamma = gamma
        self.durations = np.ones((self.buffer_size, self.n_envs), np.float32)

    def extend(self, chunk: Chunk) -> None:
        """Add all transitions of a chunk, environment by environment."""
        flat, count = flat_transitions([chunk]), chunk.size
        following = chunk.next_observations().swapaxes(0, 1).reshape(count, -1)
        where = (self.pos + np.arange(count)) % self.buffer_size
        self.observations[where, 0] = flat["observation"].reshape(count, *self.observations.shape[2:])
        self.next_observations[where, 0] = following.reshape(count, *self.next_observations.shape[2:])
        self.actions[where, 0] = flat["action"].reshape(count, *self.actions.shape[2:])
        self.rewards[where, 0] = flat["reward"]
        self.dones[where, 0] = flat["terminated"] | flat["truncated"]
        self.timeouts[where, 0] = flat["truncated"] & ~flat["terminated"]
        self.durations[where, 0] = flat["duration"]
        self.full = self.full or self.pos + count >= self.buffer_size
        self.pos = (self.pos + count) % self.buffer_size

    def _get_samples(self, batch_inds: NDArray[Any], env: VecNormalize | None = None) -> ReplayBufferSamples:
        """As ``ReplayBuffer`` has it for one environment, with the discounts."""
        over = self.dones[batch_inds, 0] * (1.0 - self.timeouts[batch_inds, 0])
        discounts = np.power(np.float32(self.gamma), self.durations[batch_inds, 0])
        parts = (
            self._normalize_obs(self.observations[batch_inds, 0], env),
            self.actions[batch_inds, 0],
            self._normalize_obs(self.next_observations[batch_inds, 0], env),
            over[:, None],
            self._normalize_reward(self.rewards[batch_inds, 0][:, None], env),
            discounts[:, None],
        )
        return ReplayBufferSamples(*map(self.to_torch, parts))
