"""MaskablePPO, as far as it can be told without PyTorch: PPO on what the environment shows, with masks beside it."""

from __future__ import annotations

from gymnasium.spaces import Discrete, MultiDiscrete

from rlctl.complaints import check_options
from rlctl.errors import ConfigError
from rlctl.rewarded import Game, game_spaces
from rlctl.schema import Config
from rlctl_agents.entry import Learner
from rlctl_agents.ppo.options import PlainOptions, check_plain
from rlctl_agents.ppo.preparation import discounted
from rlctl_agents.recipe import Prepare


class MaskableDescription:
    """See ``rlctl_agents.recipe.Description``."""

    with_mask = True
    with_privileged = False
    mask_in_row = False

    def options(self, config: Config) -> PlainOptions:
        """``train.options``."""
        return check_options(PlainOptions, config.train.options if config.train else {}, "train.options")

    def check(self, config: Config, factory: Game) -> None:
        """Refuse actions that are no choices.

        Raises:
            ConfigError: they are not.
        """
        check_plain(config, self.options(config))
        actions = game_spaces(factory, config.seed)[1]
        if not isinstance(actions, Discrete | MultiDiscrete):
            raise ConfigError(f"maskable_ppo wants choices, not {actions}: use ppo", ("train", "algorithm"))

    def prepare(self, options: PlainOptions) -> Prepare:
        """The discount that shapes rewards."""
        return discounted(options.gamma)


maskable_ppo = Learner(MaskableDescription(), "rlctl_agents.maskable_ppo.recipe:recipe")
