"""``train.options`` of PPO; loads no PyTorch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from gymnasium.spaces import Discrete, MultiDiscrete
from pydantic import Field

from rlctl.bundle.actions import action_heads
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game, game_spaces
from rlctl_agents.algorithm import OPTIONS, LearnerOptions
from rlctl_agents.on_policy.options import ChoiceOptions, OnPolicyOptions

_Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class PPOConfig(OnPolicyOptions, ChoiceOptions, LearnerOptions):
    """``train.options`` of PPO.

    Attributes:
        logit_bias: initial biases of the logits, flat over the heads; empty: none.
        observation_clip: observations are clipped to plus or minus this.
    """

    with_mask: ClassVar[bool] = True
    with_privileged: ClassVar[bool] = True
    mask_in_row: ClassVar[bool] = True

    logit_bias: list[_Logit] = Field(default_factory=list)
    observation_clip: float | None = Field(default=None, gt=0, le=1e6)

    def check(self, config: Config, game: Game) -> None:
        """Raise ConfigError if the campaign does not suit these options."""
        self.check_memory(config)
        _, actions = game_spaces(game, config.seed)
        self.check_bias(sum(action_heads(actions)) if isinstance(actions, Discrete | MultiDiscrete) else 0)
        self.check_choices(config, game)

    def manifest_network(self, game: Game, seed: int) -> dict[str, Any]:
        """See ``LearnerOptions.manifest_network``."""
        return self.choosing_network(self.net_arch, game, seed) | {"observation_clip": self.observation_clip}

    def check_bias(self, choices: int) -> None:
        """Raise ConfigError if there are other than no biases or one for each choice, or the network has none."""
        where = (*OPTIONS, "logit_bias")
        if self.logit_bias and self.network == "attention":
            raise ConfigError("attention gives all choices one bias: leave it out", where)
        if self.logit_bias and len(self.logit_bias) != choices:
            raise ConfigError(
                f"{len(self.logit_bias)} numbers, but the campaign (campaign.options) offers {choices} choices: "
                "give one for each, or leave it out",
                where,
            )
