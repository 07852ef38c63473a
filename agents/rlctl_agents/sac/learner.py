"""SAC that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from collections.abc import Sequence

from stable_baselines3 import SAC
from torch.optim import Optimizer

from rlctl_agents.off_policy.replay_from_actors import OffPolicyFromActors


class ActorSAC(OffPolicyFromActors, SAC):
    """SAC from the chunks of actors."""

    def optimizers(self) -> Sequence[Optimizer]:
        """That of the entropy's weight too, where it is learned."""
        entropy = self.ent_coef_optimizer
        return [*super().optimizers(), *([] if entropy is None else [entropy])]
