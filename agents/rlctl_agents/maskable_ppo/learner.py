"""MaskablePPO that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback

from rlctl.bundle.actions import action_heads
from rlctl_agents.on_policy.chunk_batch import ChunkBatch
from rlctl_agents.on_policy.rollout_buffers import FilledMaskableRolloutBuffer
from rlctl_agents.on_policy.rollouts_from_actors import Evaluation, OnPolicyFromActors


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

    def _evaluate(self, batch: ChunkBatch) -> Evaluation:
        spec = self.collector.transition_spec
        n_obs, n_mask = spec.n_obs, spec.n_mask
        rows = np.concatenate([batch.observations, batch.last_observations, batch.cut_observations])[:, :n_obs]
        masks = batch.observations[:, n_obs : n_obs + n_mask]
        if not n_mask:
            masks = np.ones((len(batch), sum(action_heads(cast(Any, self.action_space)))), np.float32)
        seen = self._tensor(rows)
        with torch.no_grad():
            values = self.policy.predict_values(seen).flatten().cpu().numpy()
            distribution = self.policy.get_distribution(seen[: len(batch)], action_masks=masks)
            log_probs = distribution.log_prob(self._actions(batch)).cpu().numpy()
        values, last, cut = batch.split(values)
        more = {"observations": batch.observations[:, :n_obs], "action_masks": masks}
        return Evaluation(values, log_probs, last, cut, more)
