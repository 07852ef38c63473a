"""Makes the models of all algorithms with their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule

from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.dqn.config import DQNConfig
from rlctl_agents.maskable_ppo.config import MaskablePPOConfig
from rlctl_agents.maskable_ppo.learner import ActorMaskablePPO
from rlctl_agents.maskable_ppo.networks import AttentiveMaskablePolicy
from rlctl_agents.off_policy.replay_buffer import TimedReplayBuffer
from rlctl_agents.off_policy.replay_from_actors import ActorDQN, ActorSAC, ActorTD3, OffPolicyFromActors
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.rollouts_from_actors import ActorPPO
from rlctl_agents.ppo.config import PPOConfig
from rlctl_agents.ppo.networks import PrivilegedPolicy, set_bias
from rlctl_agents.recurrent_ppo.config import RecurrentPPOConfig
from rlctl_agents.recurrent_ppo.learner import ActorRecurrentPPO
from rlctl_agents.sac.config import SACConfig
from rlctl_agents.td3.config import TD3Config
from rlctl_agents.vec_env import RemoteEnvSpec

RULE_LOGIT = 4.0
"""Initial logit of "as the rule says", in each head, above that of every other choice."""
_CLASSES: dict[type[LearnerOptions], tuple[type[Any], type[Any]]] = {
    PPOConfig: (PPO, ActorPPO),
    MaskablePPOConfig: (MaskablePPO, ActorMaskablePPO),
    RecurrentPPOConfig: (RecurrentPPO, ActorRecurrentPPO),
    SACConfig: (SAC, ActorSAC),
    TD3Config: (TD3, ActorTD3),
    DQNConfig: (DQN, ActorDQN),
}
_SAME = {
    *("buffer_size", "device", "ent_coef", "exploration_fraction", "gae_lambda", "gamma", "learning_rate"),
    *("learning_starts", "max_grad_norm", "n_epochs", "policy_delay", "tau", "vf_coef"),
}
"""Options that Stable-Baselines3 calls the same; what it calls otherwise follows."""
_RENAMED = {
    "clip": "clip_range",
    "exploration_final": "exploration_final_eps",
    "exploration_initial": "exploration_initial_eps",
    "target_update": "target_update_interval",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a model is made for.

    Attributes:
        env: what it learns from.
        centre: choices that mean "as the rule says"; empty without a rule.
        environments: how many, of this learner.
        learners: of this policy; each has its share of a minibatch.
        game, seed: of the configuration.
    """

    env: RemoteEnvSpec
    centre: tuple[int, ...]
    environments: int
    learners: int
    game: Game
    seed: int


def model_class(options: LearnerOptions, from_actors: bool) -> type[Any]:
    """Stable-Baselines3's own class, which steps environments itself, or ours, which learns from actors."""
    return _CLASSES[type(options)][from_actors]


def make_model(kind: type[Any], options: LearnerOptions, setting: Setting) -> Any:
    """A new model of a class of ``model_class``."""
    data = options.model_dump(include=_SAME | _RENAMED.keys())
    arguments = {_RENAMED.get(name, name): value for name, value in data.items()}
    if isinstance(options, OnPolicyOptions):
        arguments |= _on_policy_arguments(options, setting)
        if isinstance(options, PPOConfig):
            return _make_ppo(kind, options, setting, arguments)
        policy, kwargs = _on_policy_network(options, setting)
        return kind(policy, setting.env, policy_kwargs=kwargs, **arguments)
    assert isinstance(options, SACConfig | TD3Config | DQNConfig)
    arguments |= _off_policy_arguments(kind, options, setting)
    return kind("MlpPolicy", setting.env, policy_kwargs={"net_arch": options.net_arch}, **arguments)


def initial_logit_bias(heads: tuple[int, ...], centre: tuple[int, ...]) -> list[float]:
    """Biases that make a policy around a rule begin mostly as the rule; none without a rule."""
    if not centre:
        return []
    return [RULE_LOGIT if i == c else 0.0 for n, c in zip(heads, centre, strict=True) for i in range(n)]


def _on_policy_arguments(options: OnPolicyOptions, setting: Setting) -> dict[str, Any]:
    count, rate = setting.env.num_envs, options.learning_rate
    n_steps = options.n_steps * setting.environments // count
    return {
        "learning_rate": LinearSchedule(rate, rate * options.final_learning_rate, 1.0),
        "n_steps": n_steps,
        "batch_size": max(2, min(options.batch_size // setting.learners, n_steps * count)),
    }


def _on_policy_network(options: OnPolicyOptions, setting: Setting) -> tuple[Any, dict[str, Any]]:
    if isinstance(options, RecurrentPPOConfig):
        return "MlpLstmPolicy", {"net_arch": options.net_arch, "lstm_hidden_size": options.lstm_units}
    assert isinstance(options, MaskablePPOConfig)
    attention = options.attention_spec(setting.game, setting.seed)
    if attention is None:
        return "MlpPolicy", {"net_arch": options.net_arch}
    return AttentiveMaskablePolicy, {"attention": attention}


def _make_ppo(kind: type[Any], options: PPOConfig, setting: Setting, arguments: dict[str, Any]) -> Any:
    """With Stable-Baselines3's own policy where that can do what is asked for."""
    env = setting.env
    options.check_bias(sum(env.heads))
    bias = options.logit_bias or initial_logit_bias(env.heads, setting.centre) or None
    attention = options.attention_spec(setting.game, setting.seed)
    kwargs: dict[str, Any] = {"net_arch": options.net_arch, "optimizer_kwargs": {"eps": 1e-5, "fused": True}}
    if env.n_mask or env.n_privileged or attention or options.observation_clip is not None:
        kwargs |= {"n_obs": env.n_obs, "n_mask": env.n_mask, "logit_bias": bias, "attention": attention}
        kwargs["observation_clip"] = options.observation_clip
        return kind(PrivilegedPolicy, env, policy_kwargs=kwargs, **arguments)
    model: Any = kind("MlpPolicy", env, policy_kwargs=kwargs, **arguments)
    if bias is not None:
        set_bias(model.policy.action_net, bias)
    return model


def _off_policy_arguments(
    kind: type[Any], options: SACConfig | TD3Config | DQNConfig, setting: Setting
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"batch_size": max(2, options.batch_size // setting.learners)}
    if isinstance(options, TD3Config):
        shape: Any = setting.env.action_space.shape
        arguments["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, options.noise))
    if issubclass(kind, OffPolicyFromActors):
        buffer = {"replay_buffer_class": TimedReplayBuffer, "replay_buffer_kwargs": {"gamma": options.gamma}}
        return arguments | buffer | {"train_freq": options.train_freq}
    # Stable-Baselines3 counts steps of all environments together.
    count = setting.env.num_envs
    steps = max(1, options.train_freq // count)
    updates = max(1, round(steps * count * options.updates_per_decision))
    return arguments | {"train_freq": steps, "gradient_steps": updates}
