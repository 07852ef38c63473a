"""``train.options`` of TD3; loads no PyTorch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.off_policy.options import ReplayOptions


class TD3Config(ReplayOptions, LearnerOptions):
    """``train.options`` of TD3.

    Attributes:
        tau: share of the networks that their targets take up in a gradient step.
        noise: standard deviation of what is added to actions, which are scaled to within -1 and 1.
        policy_delay: gradient steps of the critics for one of the actor.
    """

    output: ClassVar[str] = "squashed"

    tau: float = Field(default=0.005, gt=0, le=1)
    noise: float = Field(default=0.1, ge=0, le=10)
    policy_delay: int = Field(default=2, ge=1, le=1000)
