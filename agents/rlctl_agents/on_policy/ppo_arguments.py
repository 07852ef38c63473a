"""Arguments of Stable-Baselines3's on-policy algorithms, from the options that they share."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from rlctl_agents.algorithm import LearnerOptions, Setting
from rlctl_agents.on_policy.options import OnPolicyOptions


def on_policy_arguments(setting: Setting, common: LearnerOptions, options: OnPolicyOptions) -> dict[str, Any]:
    """What PPO and its kin are made with; of several learners each has its share of a minibatch."""
    env, rate = setting.env, options.learning_rate
    n_steps = options.n_steps * setting.environments // env.num_envs
    return {
        "learning_rate": LinearSchedule(rate, rate * options.final_learning_rate, 1.0),
        "n_steps": n_steps,
        "batch_size": max(2, min(options.batch_size // setting.learners, n_steps * env.num_envs)),
        "n_epochs": options.n_epochs,
        "gamma": common.gamma,
        "gae_lambda": options.gae_lambda,
        "clip_range": options.clip,
        "ent_coef": options.ent_coef,
        "vf_coef": options.vf_coef,
        "max_grad_norm": options.max_grad_norm,
        "device": common.device,
    }
