"""``train.options`` of SAC; loads no PyTorch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import OPTIONS, LearnerOptions
from rlctl_agents.off_policy.options import ReplayOptions


class SACConfig(ReplayOptions, LearnerOptions):
    """``train.options`` of SAC.

    Attributes:
        tau: share of the networks that their targets take up in a gradient step.
        ent_coef: weight of the entropy in the loss; ``auto`` finds one.
    """

    output: ClassVar[str] = "squashed_gaussian"

    tau: float = Field(default=0.005, gt=0, le=1)
    ent_coef: float | str = Field(default="auto")

    def check(self, config: Config, game: Game) -> None:
        """Raise ConfigError if the weight of the entropy is neither a number nor ``auto``."""
        if isinstance(self.ent_coef, str) and self.ent_coef != "auto":
            raise ConfigError(f"must be a number or auto, got {self.ent_coef!r}", (*OPTIONS, "ent_coef"))
