"""Holds a policy to the one that its training started from, less and less.

Each decision costs its logarithm of probability minus that under the start, as in training from human preferences
(Ziegler et al. 2019, arXiv:1909.08593, equation 2): on average, the Kullback-Leibler divergence from the start.
Stable-Baselines3's update stays what it is; only rewards change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO

from rlctl_agents.on_policy.options import OnPolicyOptions

Float32 = NDArray[np.float32]
ROWS = 8192
"""That the network reads at once."""


class Pull:
    """The policy that a training started from, and how strongly it pulls.

    Args:
        model: as it starts.
        decisions: of the whole training.
    """

    def __init__(self, model: Any, options: OnPolicyOptions, decisions: int) -> None:
        self._weight, self._until = options.pull, options.pull_until * decisions
        made = model.policy_class(model.observation_space, model.action_space, model.lr_schedule, **model.policy_kwargs)
        made.load_state_dict(model.policy.state_dict())
        self.policy = made.to(model.device).requires_grad_(False)
        self.policy.set_training_mode(False)
        self._masked, self._recurrent = isinstance(model, MaskablePPO), isinstance(model, RecurrentPPO)
        self._memory: Any = None

    def weight(self, done: int) -> float:
        """Standard deviations of the advantages that a nat costs, after ``done`` decisions."""
        return self._weight * max(0.0, 1.0 - done / self._until) if self._until > 0.0 else 0.0

    def charge(self, model: Any) -> None:
        """Lower the rewards of a rollout that this process has just collected; compute its returns anew."""
        buffer, weight = model.rollout_buffer, self.weight(model.num_timesteps)
        if weight <= 0.0:
            return
        difference = buffer.log_probs - self._of_buffer(model, buffer)
        model.logger.record("learning/start_kl", float(difference.mean()))
        buffer.rewards -= weight * float(buffer.advantages.std()) * difference
        ended = model._last_episode_starts
        with torch.no_grad():
            more = (model._last_lstm_states.vf, torch.as_tensor(ended, dtype=torch.float32)) if self._recurrent else ()
            following = model.policy.predict_values(torch.as_tensor(model._last_obs, device=model.device), *more)
        buffer.compute_returns_and_advantage(following, ended)

    def log_probs(self, rows: Float32, actions: torch.Tensor, masks: NDArray[Any] | None = None) -> Float32:
        """Under the start, without memory, [N].

        Args:
            rows: [N, ...], as the network reads them.
            masks: of MaskablePPO.
        """
        parts = []
        with torch.no_grad():
            for at in range(0, len(rows), ROWS):
                part = slice(at, at + ROWS)
                seen = torch.as_tensor(np.ascontiguousarray(rows[part]), device=self.policy.device)
                more = {"action_masks": masks[part]} if masks is not None else {}
                parts.append(self.policy.get_distribution(seen, **more).log_prob(actions[part]).cpu().numpy())
        return np.concatenate(parts)

    def _of_buffer(self, model: Any, buffer: Any) -> Float32:
        steps, count = buffer.rewards.shape
        actions = torch.as_tensor(buffer.actions, device=self.policy.device)
        if not model.action_space.shape:
            actions = actions.long().reshape(steps, count)
        if self._recurrent:
            return self._along(buffer.observations, actions, buffer.episode_starts)
        rows = buffer.observations.reshape(steps * count, -1)
        masks = buffer.action_masks.reshape(steps * count, -1) if self._masked else None
        return self.log_probs(rows, actions.reshape(steps * count, *actions.shape[2:]), masks).reshape(steps, count)

    def _along(self, rows: Float32, actions: torch.Tensor, starts: Float32) -> Float32:
        """With the memory that the start would have by now."""
        lstm, found = self.policy.lstm_actor, []
        if self._memory is None:
            shape = (lstm.num_layers, rows.shape[1], lstm.hidden_size)
            self._memory = tuple(torch.zeros(shape, device=self.policy.device) for _ in range(2))
        with torch.no_grad():
            for row, action, start in zip(rows, actions, starts, strict=True):
                seen = torch.as_tensor(row, device=self.policy.device)
                began = torch.as_tensor(start, device=self.policy.device)
                distribution, self._memory = self.policy.get_distribution(seen, self._memory, began)
                found.append(distribution.log_prob(action).cpu().numpy())
        return np.stack(found)

    def save(self, path: Path) -> None:
        """Write the start's weights and its memory."""
        torch.save({"policy": self.policy.state_dict(), "memory": self._memory}, path)

    def restore(self, path: Path) -> None:
        """Read them again."""
        data = torch.load(path, map_location=self.policy.device, weights_only=True)
        self.policy.load_state_dict(data["policy"])
        self._memory = data["memory"]
