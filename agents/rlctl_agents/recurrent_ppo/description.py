"""RecurrentPPO, as far as it can be told without PyTorch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game
from rlctl_agents.described import Described
from rlctl_agents.entry import Learner
from rlctl_agents.ppo.options import PlainOptions, check_plain


class RecurrentOptions(PlainOptions):
    """``train.options`` of RecurrentPPO.

    Attributes:
        lstm_units: of the recurrent layer, of actor and critic each.
    """

    lstm_units: int = Field(default=64, ge=1, le=16_384)


class RecurrentDescription(Described[RecurrentOptions]):
    """See ``rlctl_agents.recipe.Description``. It knows no masks: what they forbid, the campaign must put up with."""

    options_kind = RecurrentOptions
    with_mask = False
    with_privileged = False
    mask_in_row = False

    def check(self, config: Config, factory: Game) -> None:
        """Refuse several learners.

        Raises:
            ConfigError: there are to be several.
        """
        check_plain(config, self.options(config))
        if config.train is not None and config.train.distributed.learners > 1:
            raise ConfigError("recurrent_ppo learns on one learner: set it to 1", ("train", "distributed", "learners"))

    def network(self, config: Config, factory: Game) -> dict[str, Any]:
        """See ``rlctl_agents.recipe.Description``."""
        options = self.options(config)
        return {"hidden": options.net_arch, "lstm": options.lstm_units}


recurrent_ppo = Learner(RecurrentDescription(), "rlctl_agents.recurrent_ppo.recipe:recipe")
