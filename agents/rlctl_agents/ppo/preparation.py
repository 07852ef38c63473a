"""What options ask of the environments, wherever they are stepped; loads no PyTorch."""

from __future__ import annotations

from typing import Any

from rlctl.core.errors import ConfigError
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualActions, ResidualVectorActions
from rlctl.plugins.registry import make_rule
from rlctl_agents.ppo.options import RESIDUAL, ChoosingOptions
from rlctl_agents.recipe import Prepare


def discounted(gamma: float) -> Prepare:
    """Gives environments the discount that shapes rewards."""

    def prepare(environment: Any, name: str) -> Any:
        if isinstance(environment, CampaignEnv | CampaignVectorEnv):
            environment.gamma = gamma
        return environment

    return prepare


def preparation(options: ChoosingOptions) -> Prepare:
    """Gives environments the discount that shapes rewards, and the rule around which choices are made."""

    def prepare(environment: Any, name: str) -> Any:
        discounted(options.gamma)(environment, name)
        if options.residual is None:
            return environment
        if not isinstance(environment, CampaignEnv | CampaignVectorEnv):
            raise ConfigError(f"campaign {name!r} does not offer it: leave it out", RESIDUAL)
        rule = make_rule(options.residual, "residual", RESIDUAL)
        if isinstance(environment, CampaignVectorEnv):
            return ResidualVectorActions(environment, rule)
        return ResidualActions(environment, rule)

    return prepare
