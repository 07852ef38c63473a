"""Makes DQN."""

from __future__ import annotations

from typing import Any

from stable_baselines3 import DQN

from rlctl_agents.algorithm import Builder, Setting
from rlctl_agents.dqn.config import DQNConfig
from rlctl_agents.dqn.learner import ActorDQN
from rlctl_agents.off_policy.replay_arguments import off_policy_arguments


def build(options: DQNConfig) -> Builder:
    """The builder of DQN."""
    own = {
        "target_update_interval": options.target_update,
        "exploration_fraction": options.exploration_fraction,
        "exploration_initial_eps": options.exploration_initial,
        "exploration_final_eps": options.exploration_final,
        "max_grad_norm": options.max_grad_norm,
    }

    def make(kind: type[Any], setting: Setting) -> Any:
        return kind("MlpPolicy", setting.env, **own, **off_policy_arguments(setting, options, options))

    return Builder(DQN, ActorDQN, make)
