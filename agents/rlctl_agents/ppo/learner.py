"""PPO that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from stable_baselines3 import PPO

from rlctl_agents.on_policy.rollout_buffers import FilledRolloutBuffer
from rlctl_agents.on_policy.rollouts_from_actors import OnPolicyFromActors


class ActorPPO(OnPolicyFromActors, PPO):
    """PPO from the chunks of actors."""

    def _setup_model(self) -> None:
        self.rollout_buffer_class = FilledRolloutBuffer
        super()._setup_model()
