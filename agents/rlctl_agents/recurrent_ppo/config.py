"""``train.options`` of RecurrentPPO; loads no PyTorch."""

from __future__ import annotations

from pydantic import Field

from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.on_policy.options import OnPolicyOptions


class RecurrentPPOConfig(LearnerOptions, OnPolicyOptions):
    """``train.options`` of RecurrentPPO.

    Attributes:
        lstm_units: of the recurrent layer, of actor and critic each.
    """

    lstm_units: int = Field(default=64, ge=1, le=16_384)
