"""DQN that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from collections.abc import Sequence

from stable_baselines3 import DQN
from torch.optim import Optimizer

from rlctl_agents.off_policy.replay_from_actors import OffPolicyFromActors


class ActorDQN(OffPolicyFromActors, DQN):
    """DQN from the chunks of actors."""

    def optimizers(self) -> Sequence[Optimizer]:
        """That of the one network."""
        return [self.policy.optimizer]

    def exploration(self) -> float:
        """The probability of a random action."""
        return float(self.exploration_rate)
