"""``train.options`` of MaskablePPO; loads no PyTorch."""

from __future__ import annotations

from typing import Any, ClassVar

from rlctl.config.schema import Config
from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.on_policy.options import ChoiceOptions, OnPolicyOptions


class MaskablePPOConfig(OnPolicyOptions, ChoiceOptions, LearnerOptions):
    """``train.options`` of MaskablePPO."""

    with_mask: ClassVar[bool] = True

    def check(self, config: Config, game: Game) -> None:
        """Raise ConfigError if the campaign does not suit these options."""
        self.check_memory(config)
        self.check_choices(config, game)

    def manifest_network(self, game: Game, seed: int) -> dict[str, Any]:
        """See ``LearnerOptions.manifest_network``."""
        return self.choosing_network(self.net_arch, game, seed)
