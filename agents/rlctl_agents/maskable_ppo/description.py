"""MaskablePPO, as far as it can be told without PyTorch: PPO on what the environment shows, with masks beside it."""

from __future__ import annotations

from gymnasium.spaces import Discrete, MultiDiscrete

from rlctl.errors import ConfigError
from rlctl.rewarded import Game, game_spaces
from rlctl.schema import Config
from rlctl_agents.described import Described
from rlctl_agents.entry import Learner
from rlctl_agents.ppo.options import ChoosingOptions, check_network, check_plain, check_rule
from rlctl_agents.ppo.preparation import preparation
from rlctl_agents.recipe import Prepare


class MaskableDescription(Described[ChoosingOptions]):
    """See ``rlctl_agents.recipe.Description``."""

    options_kind = ChoosingOptions
    with_mask = True
    with_privileged = False
    mask_in_row = False

    def check(self, config: Config, factory: Game) -> None:
        """Refuse actions that are no choices.

        Raises:
            ConfigError: they are not.
        """
        options = self.options(config)
        check_plain(config, options)
        actions = game_spaces(factory, config.seed)[1]
        if not isinstance(actions, Discrete | MultiDiscrete):
            raise ConfigError(f"maskable_ppo wants choices, not {actions}: use ppo", ("train", "algorithm"))
        check_network(config, options, factory)
        check_rule(config, options, factory)

    def prepare(self, options: ChoosingOptions) -> Prepare:
        """See ``rlctl_agents.ppo.preparation``."""
        return preparation(options)


maskable_ppo = Learner(MaskableDescription(), "rlctl_agents.maskable_ppo.recipe:recipe")
