"""SAC, TD3 and DQN, as far as they can be told without PyTorch."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from rlctl.errors import ConfigError
from rlctl.rewarded import Game, game_spaces
from rlctl.schema import Config
from rlctl_agents.described import Described
from rlctl_agents.entry import Learner
from rlctl_agents.off_policy.options import DQNOptions, ReplayOptions, SACOptions, TD3Options

O = TypeVar("O", bound=ReplayOptions)  # noqa: E741


class ReplayDescription(Described[O]):
    """See ``rlctl_agents.recipe.Description``.

    Args:
        name: as registered.
        kind: of its options.
    """

    with_mask = False
    with_privileged = False
    mask_in_row = False

    def __init__(self, name: str, kind: type[O]) -> None:
        self.name, self.options_kind = name, kind

    def check(self, config: Config, factory: Game) -> None:
        """Refuse actions that the algorithm does not know.

        Raises:
            ConfigError: they are such.
        """
        options = self.options(config)
        actions, key = game_spaces(factory, config.seed)[1], ("train", "algorithm")
        if isinstance(options, DQNOptions):
            if not isinstance(actions, Discrete):
                raise ConfigError(f"dqn wants one choice among several (Discrete), not {actions}: use ppo", key)
            if options.exploration_final > options.exploration_initial:
                raise ConfigError(
                    "must not be larger than exploration_initial", ("train", "options", "exploration_final")
                )
        elif not isinstance(actions, Box) or not np.isfinite([actions.low, actions.high]).all():
            raise ConfigError(f"{self.name} wants numbers within bounds (Box), not {actions}: use ppo or dqn", key)
        if isinstance(options, SACOptions) and isinstance(options.ent_coef, str) and options.ent_coef != "auto":
            raise ConfigError(f"must be a number or auto, got {options.ent_coef!r}", ("train", "options", "ent_coef"))


SAC = ReplayDescription("sac", SACOptions)
TD3 = ReplayDescription("td3", TD3Options)
DQN = ReplayDescription("dqn", DQNOptions)

sac = Learner(SAC, "rlctl_agents.off_policy.recipe:sac")
td3 = Learner(TD3, "rlctl_agents.off_policy.recipe:td3")
dqn = Learner(DQN, "rlctl_agents.off_policy.recipe:dqn")
