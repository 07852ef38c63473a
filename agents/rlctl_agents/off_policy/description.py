"""SAC, TD3 and DQN, as far as they can be told without PyTorch."""

from __future__ import annotations

from typing import Any, TypeVar

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game
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
        """Refuse options that do not go together.

        Raises:
            ConfigError: they do not.
        """
        options = self.options(config)
        if isinstance(options, DQNOptions) and options.exploration_final > options.exploration_initial:
            raise ConfigError("must not be larger than exploration_initial", ("train", "options", "exploration_final"))
        if isinstance(options, SACOptions) and isinstance(options.ent_coef, str) and options.ent_coef != "auto":
            raise ConfigError(f"must be a number or auto, got {options.ent_coef!r}", ("train", "options", "ent_coef"))

    def network(self, config: Config, factory: Game) -> dict[str, Any]:
        """See ``rlctl_agents.recipe.Description``."""
        options = self.options(config)
        output = _OUTPUTS.get(type(options), "plain")
        return {"hidden": options.net_arch, "activation": "relu", "output": output}


_OUTPUTS = {SACOptions: "squashed_gaussian", TD3Options: "squashed"}

SAC = ReplayDescription("sac", SACOptions)
TD3 = ReplayDescription("td3", TD3Options)
DQN = ReplayDescription("dqn", DQNOptions)

sac = Learner(SAC, "rlctl_agents.off_policy.recipe:sac")
td3 = Learner(TD3, "rlctl_agents.off_policy.recipe:td3")
dqn = Learner(DQN, "rlctl_agents.off_policy.recipe:dqn")
