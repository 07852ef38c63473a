"""``train.options`` of DQN; loads no PyTorch."""

from __future__ import annotations

from pydantic import Field

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import OPTIONS, LearnerOptions
from rlctl_agents.off_policy.options import ReplayOptions


class DQNConfig(ReplayOptions, LearnerOptions):
    """``train.options`` of DQN.

    Attributes:
        target_update: decisions between two copies of the network to its target.
        exploration_fraction: share of the decisions over which the exploration falls.
        exploration_initial: probability of a random choice at first.
        exploration_final: and at last.
        max_grad_norm: gradients are clipped to this norm.
    """

    batch_size: int = Field(default=64, ge=2, le=1 << 20)
    target_update: int = Field(default=1000, ge=1)
    exploration_fraction: float = Field(default=0.1, gt=0, le=1)
    exploration_initial: float = Field(default=1.0, ge=0, le=1)
    exploration_final: float = Field(default=0.05, ge=0, le=1)
    max_grad_norm: float = Field(default=10.0, gt=0, le=1e6)

    def check(self, config: Config, game: Game) -> None:
        """Raise ConfigError if the exploration grows."""
        if self.exploration_final > self.exploration_initial:
            raise ConfigError("must not be larger than exploration_initial", (*OPTIONS, "exploration_final"))
