"""Makes PPO: with masks, with privileged sight for the critic, perhaps around a rule."""

from __future__ import annotations

from typing import Any

from stable_baselines3 import PPO

from rlctl_agents.algorithm import Builder, Setting
from rlctl_agents.on_policy.ppo_arguments import on_policy_arguments
from rlctl_agents.ppo.config import PPOConfig
from rlctl_agents.ppo.learner import ActorPPO
from rlctl_agents.ppo.networks import PrivilegedPolicy, set_bias

RULE_LOGIT = 4.0
"""Initial logit of "as the rule says", in each head, above that of every other choice."""


def build(options: PPOConfig) -> Builder:
    """The builder of PPO."""

    def make(kind: type[Any], setting: Setting) -> Any:
        """With Stable-Baselines3's own policy where that can do what is asked for."""
        env, arguments = setting.env, on_policy_arguments(setting, options, options)
        options.check_bias(sum(env.heads))
        bias = options.logit_bias or initial_logit_bias(env.heads, setting.centre) or None
        attention = options.attention_spec(setting.layout)
        kwargs: dict[str, Any] = {"net_arch": options.net_arch, "optimizer_kwargs": {"eps": 1e-5, "fused": True}}
        if env.n_mask or env.n_privileged or attention or options.observation_clip is not None:
            kwargs |= {"n_obs": env.n_obs, "n_mask": env.n_mask, "logit_bias": bias, "attention": attention}
            kwargs["observation_clip"] = options.observation_clip
            return kind(PrivilegedPolicy, env, policy_kwargs=kwargs, **arguments)
        model: Any = kind("MlpPolicy", env, policy_kwargs=kwargs, **arguments)
        if bias is not None:
            set_bias(model.policy.action_net, bias)
        return model

    return Builder(PPO, ActorPPO, make)


def initial_logit_bias(heads: tuple[int, ...], centre: tuple[int, ...]) -> list[float]:
    """Biases that make a policy around a rule begin mostly as the rule; none without a rule."""
    if not centre:
        return []
    return [RULE_LOGIT if i == c else 0.0 for n, c in zip(heads, centre, strict=True) for i in range(n)]
