"""PPO, as far as it can be told without PyTorch."""

from __future__ import annotations

from typing import Any

from rlctl.config.schema import Config
from rlctl.environments.reward_env import Game
from rlctl_agents.described import Described
from rlctl_agents.entry import Learner
from rlctl_agents.ppo.options import Options, check, choosing_network
from rlctl_agents.ppo.preparation import preparation
from rlctl_agents.recipe import Prepare


class PPODescription(Described[Options]):
    """See ``rlctl_agents.recipe.Description``."""

    options_kind = Options
    with_mask = True
    with_privileged = True
    mask_in_row = True

    def check(self, config: Config, factory: Game) -> None:
        """See ``rlctl_agents.ppo.options.check``."""
        check(config, factory)

    def network(self, config: Config, factory: Game) -> dict[str, Any]:
        """See ``rlctl_agents.recipe.Description``."""
        return choosing_network(self.options(config), factory, config.seed)

    def prepare(self, options: Options) -> Prepare:
        """See ``rlctl_agents.ppo.preparation``."""
        return preparation(options)


ppo = Learner(PPODescription(), "rlctl_agents.ppo.recipe:recipe")
