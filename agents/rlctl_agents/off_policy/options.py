"""What a user can set about SAC, TD3 and DQN, checked without loading PyTorch."""

from __future__ import annotations

from pydantic import Field

from rlctl_agents.described import LearnerOptions, Width


class ReplayOptions(LearnerOptions):
    """What the three have in common.

    Attributes:
        learning_rate: of all networks.
        buffer_size: decisions that are kept to learn from.
        learning_starts: decisions before the first update; SAC and TD3 decide at random until then.
        batch_size: decisions per gradient step.
        train_freq: decisions between two updates.
        updates_per_decision: gradient steps in an update, for each decision since the last one.
        net_arch: hidden widths of each network.
    """

    learning_rate: float = Field(default=3e-4, gt=0, le=10)
    buffer_size: int = Field(default=100_000, ge=1, le=1 << 28)
    learning_starts: int = Field(default=1000, ge=0)
    batch_size: int = Field(default=256, ge=2, le=1 << 20)
    train_freq: int = Field(default=1, ge=1, le=1 << 20)
    updates_per_decision: float = Field(default=1.0, gt=0, le=1000)
    net_arch: list[Width] = Field(default_factory=lambda: [256, 256], max_length=16)


class SACOptions(ReplayOptions):
    """``train.options`` of SAC.

    Attributes:
        tau: share of the networks that their targets take up in a gradient step.
        ent_coef: weight of the entropy in the loss; ``auto`` finds one.
    """

    tau: float = Field(default=0.005, gt=0, le=1)
    ent_coef: float | str = Field(default="auto")


class TD3Options(ReplayOptions):
    """``train.options`` of TD3.

    Attributes:
        tau: share of the networks that their targets take up in a gradient step.
        noise: standard deviation of what is added to actions, which are scaled to within -1 and 1.
        policy_delay: gradient steps of the critics for one of the actor.
    """

    tau: float = Field(default=0.005, gt=0, le=1)
    noise: float = Field(default=0.1, ge=0, le=10)
    policy_delay: int = Field(default=2, ge=1, le=1000)


class DQNOptions(ReplayOptions):
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
