"""What options ask of the environments, wherever they are stepped; loads no PyTorch."""

from __future__ import annotations

from typing import Any

from rlctl.errors import ConfigError
from rlctl.registry import make_rule
from rlctl.vector import CampaignVectorEnv
from rlctl_agents.ppo.options import RESIDUAL, Options
from rlctl_agents.recipe import Prepare


def discounted(gamma: float) -> Prepare:
    """Gives environments the discount that shapes rewards."""

    def prepare(vector: Any, name: str) -> tuple[int, ...]:
        if hasattr(vector, "gamma"):
            vector.gamma = gamma
        return ()

    return prepare


def preparation(options: Options) -> Prepare:
    """Gives environments the discount that shapes rewards, and the rule around which choices are made."""

    def prepare(vector: Any, name: str) -> tuple[int, ...]:
        discounted(options.gamma)(vector, name)
        if options.residual is None:
            return ()
        if not isinstance(vector, CampaignVectorEnv):
            raise ConfigError(f"campaign {name!r} does not offer it: leave it out", RESIDUAL)
        vector.residual = make_rule(options.residual, "residual", RESIDUAL)
        vector.reset()
        return vector.centre

    return prepare
