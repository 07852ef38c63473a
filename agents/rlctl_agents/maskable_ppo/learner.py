"""MaskablePPO that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback

from rlctl.bundle.actions import action_heads
from rlctl_agents.on_policy.chunk_batch import ChunkBatch
from rlctl_agents.on_policy.from_actors import Evaluation, OnPolicyFromActors
from rlctl_agents.on_policy.rollout_buffers import FilledMaskableRolloutBuffer


class ActorMaskablePPO(OnPolicyFromActors, MaskablePPO):
    """MaskablePPO from the chunks of actors, whose rows hold the mask behind the observation, if there is one."""

    def _setup_model(self) -> None:
        self.rollout_buffer_class = FilledMaskableRolloutBuffer
        super()._setup_model()

    def collect_rollouts(
        self,
        env: Any,
        callback: BaseCallback,
        rollout_buffer: Any,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        """As for PPO; the masks are in the rows."""
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def evaluate_minibatch(self, data: Any, actions: torch.Tensor) -> Any:
        """Values, log-probabilities and entropies of a minibatch."""
        return self.policy.evaluate_actions(data.observations, actions, action_masks=data.action_masks)

    def _evaluate(self, batch: ChunkBatch) -> Evaluation:
        layout = self.link.source.layout
        n_obs, n_mask = layout.n_obs, layout.n_mask
        rows = self._tensor(np.concatenate([batch.rows, batch.last_rows, batch.cut_rows])[:, :n_obs])
        masks = batch.rows[:, n_obs : n_obs + n_mask]
        if not n_mask:
            masks = np.ones((len(batch), sum(action_heads(cast(Any, self.action_space)))), np.float32)
        with torch.no_grad():
            values = self.policy.predict_values(rows).flatten().cpu().numpy()
            distribution = self.policy.get_distribution(rows[: len(batch)], action_masks=masks)
            log_probs = distribution.log_prob(self._actions(batch)).cpu().numpy()
        more = {"observations": batch.rows[:, :n_obs], "action_masks": masks}
        return Evaluation(*batch.split(values, log_probs), more)
