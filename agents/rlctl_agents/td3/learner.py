"""TD3 that learns from the chunks of asynchronous actors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from stable_baselines3 import TD3

from rlctl_agents.off_policy.replay_from_actors import OffPolicyFromActors


class ActorTD3(OffPolicyFromActors, TD3):
    """TD3 from the chunks of actors."""

    def exploration(self) -> float:
        """The standard deviation of the noise."""
        return 0.0 if self.action_noise is None else float(np.mean(cast(Any, self.action_noise)._sigma))
