"""``train.options`` of PPO; loads no PyTorch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlctl.core.errors import ConfigError
from rlctl_agents.algorithm import OPTIONS, LearnerOptions
from rlctl_agents.on_policy.options import ChoiceOptions, OnPolicyOptions

_Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class PPOConfig(LearnerOptions, OnPolicyOptions, ChoiceOptions):
    """``train.options`` of PPO.

    Attributes:
        logit_bias: initial biases of the logits, flat over the heads; empty: none.
        observation_clip: observations are clipped to plus or minus this.
    """

    logit_bias: list[_Logit] = Field(default_factory=list)
    observation_clip: float | None = Field(default=None, gt=0, le=1e6)

    def check_bias(self, choices: int) -> None:
        """Check that there is an initial bias for each choice, or none.

        Raises:
            ConfigError: there are more or fewer, or the network has no biases.
        """
        where = (*OPTIONS, "logit_bias")
        if self.logit_bias and self.network == "attention":
            raise ConfigError("attention gives all choices one bias: leave it out", where)
        if self.logit_bias and len(self.logit_bias) != choices:
            raise ConfigError(
                f"{len(self.logit_bias)} numbers, but the campaign (campaign.options) offers {choices} choices: "
                "give one for each, or leave it out",
                where,
            )
