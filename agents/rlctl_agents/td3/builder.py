"""Makes TD3."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise

from rlctl_agents.algorithm import Builder, Setting
from rlctl_agents.off_policy.replay_arguments import off_policy_arguments
from rlctl_agents.td3.config import TD3Config
from rlctl_agents.td3.learner import ActorTD3


def build(options: TD3Config) -> Builder:
    """The builder of TD3."""

    def make(kind: type[Any], setting: Setting) -> Any:
        shape: Any = setting.env.action_space.shape
        noise = NormalActionNoise(np.zeros(shape), np.full(shape, options.noise))
        own = {"tau": options.tau, "policy_delay": options.policy_delay, "action_noise": noise}
        return kind("MlpPolicy", setting.env, **own, **off_policy_arguments(setting, options, options))

    return Builder(TD3, ActorTD3, make)
