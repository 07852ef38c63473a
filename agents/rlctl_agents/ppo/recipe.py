"""How PPO is made: with masks, with privileged sight for the critic, perhaps around a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_baselines3 import PPO
from stable_baselines3.common.utils import LinearSchedule

from rlctl_agents.asynchronous.on_policy import AsyncPPO, alone
from rlctl_agents.asynchronous.several import ParallelPPO
from rlctl_agents.ppo.description import PPODescription
from rlctl_agents.ppo.network import PrivilegedPolicy, set_bias
from rlctl_agents.ppo.options import ChoosingOptions, Options, PlainOptions, network_spec, require_bias
from rlctl_agents.recipe import How, Setting

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl_agents.vec_env import RowsSpec, WorldsVecEnv

FAVOUR = 4.0
"""Initial logit of "as the rule says", in each head, above that of every other choice."""
KINDS: dict[How, type[PPO]] = {How.TOGETHER: PPO, How.ASYNCHRONOUS: AsyncPPO, How.SEVERAL: ParallelPPO}


class PPORecipe(PPODescription):
    """See ``rlctl_agents.recipe.Recipe``."""

    def kind(self, how: How) -> type[Any]:
        """The class."""
        return KINDS[how]

    def make(self, how: How, setting: Setting, options: Options) -> Any:
        """A new model; with Stable-Baselines3's own policy where that can do what is asked for."""
        env, kind, arguments = setting.env, KINDS[how], on_policy(setting, options)
        require_bias(options, sum(env.heads))
        bias = options.logit_bias or favoured(env, setting.centre) or None
        attention = network_spec(options, setting.layout)
        kwargs: dict[str, Any] = {"net_arch": options.net_arch, "optimizer_kwargs": {"eps": 1e-5, "fused": True}}
        if env.n_mask or env.n_privileged or attention or options.observation_clip is not None:
            kwargs |= {"n_obs": env.n_obs, "n_mask": env.n_mask, "logit_bias": bias, "attention": attention}
            kwargs["observation_clip"] = options.observation_clip
            return kind(PrivilegedPolicy, env, policy_kwargs=kwargs, **arguments)
        model: Any = kind("MlpPolicy", env, policy_kwargs=kwargs, **arguments)
        if bias is not None:
            set_bias(model.policy.action_net, bias)
        return model

    def attach(self, model: Any, ranks: LearnerContext, options: Options) -> None:
        """Give the model its actors."""
        attach(model, ranks, options)

    def manifest(self, options: Options) -> dict[str, Any]:
        """The rule, if there is one."""
        return residual(options)


def residual(options: ChoosingOptions) -> dict[str, Any]:
    """What the manifest says of the rule; nothing, if there is none."""
    return {} if options.residual is None else {"residual": options.residual.model_dump()}


def on_policy(setting: Setting, options: PlainOptions) -> dict[str, Any]:
    """What PPO and its kin are made with; of several learners each has its share of a minibatch."""
    env, rate = setting.env, options.learning_rate
    n_steps = options.n_steps * setting.environments // env.num_envs
    return {
        "learning_rate": LinearSchedule(rate, rate * options.final_learning_rate, 1.0),
        "n_steps": n_steps,
        "batch_size": max(2, min(options.batch_size // setting.learners, n_steps * env.num_envs)),
        "n_epochs": options.n_epochs,
        "gamma": options.gamma,
        "gae_lambda": options.gae_lambda,
        "clip_range": options.clip,
        "ent_coef": options.ent_coef,
        "vf_coef": options.vf_coef,
        "max_grad_norm": options.max_grad_norm,
        "device": options.device,
    }


def attach(model: Any, ranks: LearnerContext, options: PlainOptions) -> None:
    """Give an on-policy model its actors, and its fellow learners."""
    total = alone if ranks.learners is None else ranks.learners.total
    model.attach(ranks.collector, ranks.stop, total, options.bootstrap)
    if ranks.learners is not None:
        model.join(ranks.learners)


def favoured(env: WorldsVecEnv | RowsSpec, centre: tuple[int, ...]) -> list[float]:
    """Biases that make a policy around a rule begin mostly as the rule; none for other policies."""
    if not centre:
        return []
    return [FAVOUR if i == c else 0.0 for n, c in zip(env.heads, centre, strict=True) for i in range(n)]


recipe = PPORecipe()
