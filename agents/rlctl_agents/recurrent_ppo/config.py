"""``train.options`` of RecurrentPPO; loads no PyTorch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.on_policy.options import OnPolicyOptions


class RecurrentPPOConfig(OnPolicyOptions, LearnerOptions):
    """``train.options`` of RecurrentPPO.

    Attributes:
        lstm_units: of the recurrent layer, of actor and critic each.
    """

    lstm_units: int = Field(default=64, ge=1, le=16_384)

    def check(self, config: Config, game: Game) -> None:
        """Raise ConfigError if there are several learners, or too many decisions between two updates."""
        self.check_memory(config)
        if config.training.distributed.learners > 1:
            raise ConfigError("recurrent_ppo learns on one learner: set it to 1", ("train", "distributed", "learners"))

    def manifest_network(self, game: Game, seed: int) -> dict[str, Any]:
        """See ``LearnerOptions.manifest_network``."""
        return {"hidden": self.net_arch, "lstm": self.lstm_units}
