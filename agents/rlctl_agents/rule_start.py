"""Begins a training as a rule: makes environments of its own for the imitation, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.json_values import plain
from rlctl.distributed.actor.gymnasium_vector_env import GymnasiumVectorEnv
from rlctl.distributed.launch.signals import StopSignal
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.evaluation.difference import differing_share
from rlctl.evaluation.rollout import STARTING, draw_instances
from rlctl.monitoring.progress import Progress, working
from rlctl.plugins.registry import configured_campaign, make_rule
from rlctl_agents.imitation import Imitation
from rlctl_agents.starting_policy import start_decisions
from rlctl_agents.vec_env import TrainingVecEnv

if TYPE_CHECKING:
    from rlctl.bundle.network import NumpyPolicy
    from rlctl.config.schema import Config, RuleEntry
    from rlctl.core.policy import Policy
    from rlctl.environments.reward_env import Game
    from rlctl_agents.algorithm import LearnerOptions
    from rlctl_agents.on_policy.options import OnPolicyOptions

INSTANCES = 16
"""On which a trained policy is compared with the rule, decision by decision."""


def start_as(
    model: Any,
    rule: RuleEntry,
    options: LearnerOptions,
    config: Config,
    seed: int,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Teach a new model to decide as a rule does; ``model.num_timesteps`` becomes the number of decisions it took."""
    factory = configured_campaign(config)
    drawn = np.random.SeedSequence([seed, STARTING]).generate_state(2)
    decisions = start_decisions(config, cast("OnPolicyOptions", options))
    with working(progress, f"imitating {rule.rule}", decisions, "decisions"):
        imitation = Imitation(make_rule(rule, rule.rule), decisions, int(drawn[0]), progress, lambda: stop.asked)
        count, _ = imitation.shape(model)
        campaigns = CampaignVectorEnv(factory, count, int(drawn[1]), config.machine.capacity())
        made = options.env_setup(campaigns, factory.name)
        parts = {"with_mask": options.with_mask, "with_privileged": options.with_privileged}
        environments = GymnasiumVectorEnv(made, name=f"campaign {factory.name}", **parts)
        env = TrainingVecEnv(environments, options.values_truncated, options.mask_in_row)
        try:
            model.num_timesteps = imitation.teach(model, env, lambda: campaigns.episodes) or 0
        finally:
            env.close()


def started(
    config: Config,
    factory: Game,
    deployed: Callable[[Any], Policy],
    model: Any,
    before: NumpyPolicy | None,
    rule: RuleEntry | None,
) -> Mapping[str, Any]:
    """What the manifest says of the start; of a rule, also in how many of its decisions the policy differs from it."""
    if before is not None:
        decisions = (before.manifest.model_extra or {}).get("decisions")
        return {"start": {"digest": before.digest, "decisions": decisions}}
    if rule is None:
        return {}
    instances = draw_instances(config.seed, STARTING, INSTANCES)
    capacity = config.machine.capacity()
    imitated = make_rule(rule, rule.rule)
    share = differing_share(cast(CampaignFactory, factory), capacity, deployed(model), imitated, instances)
    return {"start": {**rule.model_dump(mode="json", fallback=plain), "differs": round(share, 4)}}
