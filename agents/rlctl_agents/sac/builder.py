"""Makes SAC."""

from __future__ import annotations

from typing import Any

from stable_baselines3 import SAC

from rlctl_agents.algorithm import Builder, Setting
from rlctl_agents.off_policy.replay_arguments import off_policy_arguments
from rlctl_agents.sac.config import SACConfig
from rlctl_agents.sac.learner import ActorSAC


def build(options: SACConfig) -> Builder:
    """The builder of SAC."""
    own = {"tau": options.tau, "ent_coef": options.ent_coef}

    def make(kind: type[Any], setting: Setting) -> Any:
        return kind("MlpPolicy", setting.env, **own, **off_policy_arguments(setting, options, options))

    return Builder(SAC, ActorSAC, make)
