"""Makes RecurrentPPO."""

from __future__ import annotations

from typing import Any

from sb3_contrib import RecurrentPPO

from rlctl_agents.algorithm import Builder, Setting
from rlctl_agents.on_policy.ppo_arguments import on_policy_arguments
from rlctl_agents.recurrent_ppo.config import RecurrentPPOConfig
from rlctl_agents.recurrent_ppo.learner import ActorRecurrentPPO


def build(options: RecurrentPPOConfig) -> Builder:
    """The builder of RecurrentPPO."""
    kwargs = {"net_arch": options.net_arch, "lstm_hidden_size": options.lstm_units}

    def make(kind: type[Any], setting: Setting) -> Any:
        arguments = on_policy_arguments(setting, options, options)
        return kind("MlpLstmPolicy", setting.env, policy_kwargs=kwargs, **arguments)

    return Builder(RecurrentPPO, ActorRecurrentPPO, make)
