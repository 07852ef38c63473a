"""How SAC, TD3 and DQN are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import stable_baselines3 as sb3
from stable_baselines3.common.noise import NormalActionNoise

from rlctl_agents.asynchronous.off_policy import AsyncDQN, AsyncSAC, AsyncTD3
from rlctl_agents.asynchronous.on_policy import alone
from rlctl_agents.asynchronous.replay import TimedReplayBuffer
from rlctl_agents.off_policy.description import ReplayDescription
from rlctl_agents.off_policy.options import DQNOptions, ReplayOptions, SACOptions, TD3Options
from rlctl_agents.recipe import How, Setting

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext

O = TypeVar("O", bound=ReplayOptions)  # noqa: E741


class ReplayRecipe(ReplayDescription[O]):
    """See ``rlctl_agents.recipe.Recipe``.

    Args:
        together: the class of Stable-Baselines3.
        apart: ours, for asynchronous actors.
    """

    def __init__(self, name: str, kind: type[O], together: type[Any], apart: type[Any]) -> None:
        super().__init__(name, kind)
        self._together, self._apart = together, apart

    def kind(self, how: How) -> type[Any]:
        """The class."""
        return self._together if how is How.TOGETHER else self._apart

    def make(self, how: How, setting: Setting, options: O) -> Any:
        """A new model."""
        env = setting.env
        arguments: dict[str, Any] = {
            "learning_rate": options.learning_rate,
            "buffer_size": options.buffer_size,
            "learning_starts": options.learning_starts,
            "batch_size": max(2, options.batch_size // setting.learners),
            "gamma": options.gamma,
            "policy_kwargs": {"net_arch": options.net_arch},
            "device": options.device,
            **_own(options, env.action_space),
        }
        if how is How.TOGETHER:
            # Stable-Baselines3 counts steps of all environments together.
            steps = max(1, options.train_freq // env.num_envs)
            arguments["train_freq"] = steps
            arguments["gradient_steps"] = max(1, round(steps * env.num_envs * options.updates_per_decision))
        else:
            arguments["train_freq"] = options.train_freq
            arguments["replay_buffer_class"] = TimedReplayBuffer
            arguments["replay_buffer_kwargs"] = {"gamma": options.gamma}
        return self.kind(how)("MlpPolicy", env, **arguments)

    def attach(self, model: Any, ranks: LearnerContext, options: O) -> None:
        """Give the model its actors, and its fellow learners."""
        total = alone if ranks.learners is None else ranks.learners.total
        model.attach(ranks.collector, ranks.stop, total, options.updates_per_decision)
        if ranks.learners is not None:
            model.join(ranks.learners)

    def manifest(self, options: O) -> dict[str, Any]:
        """Nothing more."""
        return {}


def _own(options: ReplayOptions, actions: Any) -> dict[str, Any]:
    """Arguments of one of the algorithms alone."""
    if isinstance(options, SACOptions):
        return {"tau": options.tau, "ent_coef": options.ent_coef}
    if isinstance(options, TD3Options):
        noise = NormalActionNoise(np.zeros(actions.shape), np.full(actions.shape, options.noise))
        return {"tau": options.tau, "policy_delay": options.policy_delay, "action_noise": noise}
    own = cast(DQNOptions, options)
    return {
        "target_update_interval": own.target_update,
        "exploration_fraction": own.exploration_fraction,
        "exploration_initial_eps": own.exploration_initial,
        "exploration_final_eps": own.exploration_final,
        "max_grad_norm": own.max_grad_norm,
    }


sac = ReplayRecipe("sac", SACOptions, sb3.SAC, AsyncSAC)
td3 = ReplayRecipe("td3", TD3Options, sb3.TD3, AsyncTD3)
dqn = ReplayRecipe("dqn", DQNOptions, sb3.DQN, AsyncDQN)
