"""MaskablePPO, as far as it can be told without PyTorch: PPO on what the environment shows, with masks beside it."""

from __future__ import annotations

from typing import Any

from rlctl.config.schema import Config
from rlctl.environments.reward_env import Game
from rlctl_agents.described import Described
from rlctl_agents.entry import Learner
from rlctl_agents.ppo.options import ChoosingOptions, check_network, check_plain, check_rule, choosing_network
from rlctl_agents.ppo.preparation import preparation
from rlctl_agents.recipe import Prepare


class MaskableDescription(Described[ChoosingOptions]):
    """See ``rlctl_agents.recipe.Description``."""

    options_kind = ChoosingOptions
    with_mask = True
    with_privileged = False
    mask_in_row = False

    def check(self, config: Config, factory: Game) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: it does not.
        """
        options = self.options(config)
        check_plain(config, options)
        check_network(config, options, factory)
        check_rule(config, options, factory)

    def network(self, config: Config, factory: Game) -> dict[str, Any]:
        """See ``rlctl_agents.recipe.Description``."""
        return choosing_network(self.options(config), factory, config.seed)

    def prepare(self, options: ChoosingOptions) -> Prepare:
        """See ``rlctl_agents.ppo.preparation``."""
        return preparation(options)


maskable_ppo = Learner(MaskableDescription(), "rlctl_agents.maskable_ppo.recipe:recipe")
