"""MaskablePPO, as far as it can be told without PyTorch: PPO on what the environment shows, with masks beside it."""

from __future__ import annotations

from gymnasium.spaces import Discrete, MultiDiscrete

from rlctl.errors import ConfigError
from rlctl.rewarded import Game, game_spaces
from rlctl.schema import Config
from rlctl_agents.described import Described
from rlctl_agents.entry import Learner
from rlctl_agents.ppo.options import PlainOptions, check_plain


class MaskableDescription(Described[PlainOptions]):
    """See ``rlctl_agents.recipe.Description``."""

    options_kind = PlainOptions
    with_mask = True
    with_privileged = False
    mask_in_row = False

    def check(self, config: Config, factory: Game) -> None:
        """Refuse actions that are no choices.

        Raises:
            ConfigError: they are not.
        """
        check_plain(config, self.options(config))
        actions = game_spaces(factory, config.seed)[1]
        if not isinstance(actions, Discrete | MultiDiscrete):
            raise ConfigError(f"maskable_ppo wants choices, not {actions}: use ppo", ("train", "algorithm"))


maskable_ppo = Learner(MaskableDescription(), "rlctl_agents.maskable_ppo.recipe:recipe")
