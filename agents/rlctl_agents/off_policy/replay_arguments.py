"""Arguments of Stable-Baselines3's off-policy algorithms, from the options that they share."""

from __future__ import annotations

from typing import Any

from rlctl_agents.algorithm import LearnerOptions, Setting
from rlctl_agents.off_policy.options import ReplayOptions
from rlctl_agents.off_policy.replay_buffer import TimedReplayBuffer


def off_policy_arguments(setting: Setting, common: LearnerOptions, options: ReplayOptions) -> dict[str, Any]:
    """What SAC, TD3 and DQN are made with; of several learners each has its share of a minibatch."""
    env = setting.env
    arguments: dict[str, Any] = {
        "learning_rate": options.learning_rate,
        "buffer_size": options.buffer_size,
        "learning_starts": options.learning_starts,
        "batch_size": max(2, options.batch_size // setting.learners),
        "gamma": common.gamma,
        "policy_kwargs": {"net_arch": options.net_arch},
        "device": common.device,
    }
    if setting.from_actors:
        arguments["train_freq"] = options.train_freq
        arguments["replay_buffer_class"] = TimedReplayBuffer
        arguments["replay_buffer_kwargs"] = {"gamma": common.gamma}
    else:
        # Stable-Baselines3 counts steps of all environments together.
        steps = max(1, options.train_freq // env.num_envs)
        arguments["train_freq"] = steps
        arguments["gradient_steps"] = max(1, round(steps * env.num_envs * options.updates_per_decision))
    return arguments
