"""Makes MaskablePPO."""

from __future__ import annotations

from typing import Any

from sb3_contrib import MaskablePPO

from rlctl_agents.algorithm import Builder, Setting
from rlctl_agents.maskable_ppo.config import MaskablePPOConfig
from rlctl_agents.maskable_ppo.learner import ActorMaskablePPO
from rlctl_agents.maskable_ppo.networks import AttentiveMaskablePolicy
from rlctl_agents.on_policy.ppo_arguments import on_policy_arguments


def build(options: MaskablePPOConfig) -> Builder:
    """The builder of MaskablePPO."""

    def make(kind: type[Any], setting: Setting) -> Any:
        attention = options.attention_spec(setting.layout)
        policy: Any = "MlpPolicy" if attention is None else AttentiveMaskablePolicy
        kwargs = {"net_arch": options.net_arch} if attention is None else {"attention": attention}
        return kind(policy, setting.env, policy_kwargs=kwargs, **on_policy_arguments(setting, options, options))

    return Builder(MaskablePPO, ActorMaskablePPO, make)
