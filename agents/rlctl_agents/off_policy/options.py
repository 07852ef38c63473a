"""``train.options`` that SAC, TD3 and DQN share; loads no PyTorch."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import Width


class ReplayOptions(BaseModel):
    """``train.options`` of algorithms that learn from a replay buffer.

    Attributes:
        learning_rate: of all networks.
        buffer_size: decisions that are kept to learn from.
        learning_starts: decisions before the first update; SAC and TD3 decide at random until then.
        batch_size: decisions per gradient step.
        train_freq: decisions between two updates.
        updates_per_decision: gradient steps in an update, for each decision since the last one.
        net_arch: hidden widths of each network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: ClassVar[str] = "plain"
    """What the acting network gives; see ``rlctl.bundle.manifest.Network``."""

    learning_rate: float = Field(default=3e-4, gt=0, le=10)
    buffer_size: int = Field(default=100_000, ge=1, le=1 << 28)
    learning_starts: int = Field(default=1000, ge=0)
    batch_size: int = Field(default=256, ge=2, le=1 << 20)
    train_freq: int = Field(default=1, ge=1, le=1 << 20)
    updates_per_decision: float = Field(default=1.0, gt=0, le=1000)
    net_arch: list[Width] = Field(default_factory=lambda: [256, 256], max_length=16)

    def manifest_network(self, game: Game, seed: int) -> dict[str, Any]:
        """See ``LearnerOptions.manifest_network``."""
        return {"hidden": self.net_arch, "activation": "relu", "output": self.output}
