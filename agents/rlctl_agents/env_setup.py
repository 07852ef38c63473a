"""What options ask of environments, wherever they are stepped; loads no PyTorch."""

from __future__ import annotations

from typing import Any

from rlctl.core.errors import ConfigError
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualActions, ResidualVectorActions
from rlctl.plugins.registry import make_rule
from rlctl_agents.algorithm import OPTIONS, AlgorithmSpec


def env_setup(spec: AlgorithmSpec, environment: Any, campaign: str) -> Any:
    """Give an environment the discount that shapes rewards, and wrap it around the rule that the policy corrects.

    Args:
        environment: or a vector of them.
        campaign: its name, for the message.

    Returns:
        what is used in its place.

    Raises:
        ConfigError: the environment knows no choices around a rule.
    """
    of_campaign = isinstance(environment, CampaignEnv | CampaignVectorEnv)
    if of_campaign:
        environment.gamma = spec.options.gamma
    if spec.residual is None:
        return environment
    where = (*OPTIONS, "residual")
    if not of_campaign:
        raise ConfigError(f"campaign {campaign!r} does not offer it: leave it out", where)
    rule = make_rule(spec.residual, "residual", where)
    if isinstance(environment, CampaignVectorEnv):
        return ResidualVectorActions(environment, rule)
    return ResidualActions(environment, rule)
